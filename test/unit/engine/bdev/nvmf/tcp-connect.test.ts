/** TCP connections that are refused, that hang, and that are given up. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { closeFd, listenTcp, localAddress } from "../../../../../ffi/index.ts";
import { connectTcp } from "../../../../../src/engine/bdev/nvmf/connect.ts";
import type { Reactor } from "../../../../../src/engine/reactor/reactor.ts";
import { TrilithError } from "../../../../../src/errors.ts";
import { withReactor } from "../../../../support/reactor.ts";

async function codeOf(promise: Promise<number>): Promise<string> {
  try {
    closeFd(await promise);
  } catch (error) {
    if (error instanceof TrilithError) return error.code;
    throw error;
  }
  return "connected";
}

/** Runs `body` with a port whose queue of connections is full: the next one is never answered. */
function withFullPort(body: (reactor: Reactor, port: number) => Promise<void>): void {
  withReactor(async (reactor) => {
    const listener = listenTcp({ address: "127.0.0.1", port: 0 }, 0);
    const { port } = localAddress(listener);
    // With a backlog of 0 the kernel completes one connection that nobody accepts.
    const waiting = await connectTcp(reactor, { address: "127.0.0.1", port }, 10_000).done;
    try {
      await body(reactor, port);
    } finally {
      closeFd(waiting);
      closeFd(listener);
    }
    expect(reactor.handlerCount).toBe(0);
  });
}

test("a connection that is never answered ends after its time", () => {
  withFullPort(async (reactor, port) => {
    const attempt = connectTcp(reactor, { address: "127.0.0.1", port }, 30);
    expect(await codeOf(attempt.done)).toBe("Timeout");
    attempt.cancel();
  });
});

test("an attempt can be given up, once", () => {
  withFullPort(async (reactor, port) => {
    const attempt = connectTcp(reactor, { address: "127.0.0.1", port }, 60_000);
    const code = codeOf(attempt.done);
    await reactor.sleep(1);
    attempt.cancel();
    attempt.cancel();
    expect(await code).toBe("Aborted");
  });
});

/** Whether this machine's loopback speaks IPv6. */
function hasIpv6(): boolean {
  const file = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
  return existsSync(file) && readFileSync(file, "utf8").trim() === "0";
}

test("an address that is out of reach", () => {
  withReactor(async (reactor) => {
    const nowhere = { address: "255.255.255.255", port: 1 };
    expect(await codeOf(connectTcp(reactor, nowhere, 10_000).done)).toBe("Unavailable");
  });
});

test.if(hasIpv6())("IPv6", () => {
  withReactor(async (reactor) => {
    const listener = listenTcp({ address: "::1", port: 0 }, 8);
    const { port } = localAddress(listener);
    expect(await codeOf(connectTcp(reactor, { address: "::1", port }, 10_000).done)).toBe(
      "connected",
    );
    closeFd(listener);
    expect(await codeOf(connectTcp(reactor, { address: "::1", port }, 10_000).done)).toBe(
      "Unavailable",
    );
  });
});
