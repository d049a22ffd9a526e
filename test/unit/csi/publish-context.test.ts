/** What the controller tells a node, as text and back. */
import { expect, test } from "bun:test";
import {
  connectOptionsOf,
  type PublishedVolume,
  publishContextOf,
  publishedVolumeOf,
} from "../../../src/csi/publish-context.ts";

const uuid = "0b9e0d3c-7e2a-4d2c-9d58-0f8f0c3c1a11";
const published: PublishedVolume = {
  uri: `nvmf+tcp://10.0.0.1:8420/nqn.2019-05.io.openebs:${uuid}`,
  connect: {
    volumeUuid: uuid,
    nqn: `nqn.2019-05.io.openebs:${uuid}`,
    hostNqn: "nqn.2019-05.io.openebs:node-name:app-1",
    paths: [
      { address: "10.0.0.1", port: 8420 },
      { address: "fd00::2", port: 8421 },
    ],
    options: { ctrlLossTmoSeconds: 1980, keepAliveTmoSeconds: 5, ioQueues: 4 },
  },
  fsId: uuid,
  ioTimeout: "30",
};

test("everything that a node needs comes back from the text", () => {
  const context = publishContextOf(published);
  expect(context.paths).toBe("10.0.0.1:8420,[fd00::2]:8421");
  expect(context.nvmeCtrlLossTmo).toBe("1980");
  expect(publishedVolumeOf(uuid, context)).toEqual(published);
});

test("what is left out stays out", () => {
  const plain = { ...published, fsId: null, ioTimeout: null };
  const bare = { ...plain, connect: { ...plain.connect, options: {} } };
  const context = publishContextOf(bare);
  expect(Object.keys(context).sort()).toEqual(["hostNqn", "nqn", "paths", "uri"]);
  expect(publishedVolumeOf(uuid, context)).toEqual(bare);
});

test("a context of another driver, or a broken one, is refused", () => {
  const context = publishContextOf(published);
  for (const key of ["uri", "nqn", "hostNqn", "paths"]) {
    const { [key]: _gone, ...rest } = context;
    expect(() => publishedVolumeOf(uuid, rest)).toThrow(`${key} is missing`);
  }
  for (const paths of ["10.0.0.1", "10.0.0.1:0", "10.0.0.1:99999", "a:1,", "fd00::2:1:x"]) {
    expect(() => publishedVolumeOf(uuid, { ...context, paths })).toThrow("paths");
  }
  expect(() => connectOptionsOf({ nvmeKeepAliveTmo: "soon" })).toThrow("no whole number");
});
