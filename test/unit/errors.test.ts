import { describe, expect, test } from "bun:test";
import { AssertionError, assert, unreachable } from "../../src/assert.ts";
import {
  errorCodes,
  facesOf,
  fromErrorBody,
  IoStatus,
  ioError,
  ioStatusCode,
  ioStatusNvme,
  TrilithError,
  toErrorBody,
} from "../../src/errors.ts";

describe("the list of errors", () => {
  test("gives every code a face at every border", () => {
    for (const code of errorCodes) {
      const { http, grpc, exit, nvme } = facesOf(code);
      expect(http).toBeGreaterThanOrEqual(400);
      expect(http).toBeLessThan(600);
      expect(grpc).toBeGreaterThanOrEqual(1); // 0 is success
      expect(grpc).toBeLessThanOrEqual(16);
      expect(exit).toBeGreaterThanOrEqual(1);
      expect(exit).toBeLessThan(64); // beyond lie the shell's own
      expect(nvme).toBeGreaterThan(0);
      expect(nvme).toBeLessThan(0x800); // status code type of 3 bits, status code of 8
    }
  });

  test("tells a script what a number means: kinds of failure have exit statuses of their own", () => {
    const kinds = ["Internal", "InvalidArgument", "NotFound", "AlreadyExists", "NoSpace"] as const;
    expect(new Set(kinds.map((code) => facesOf(code).exit)).size).toBe(kinds.length);
    expect(facesOf("InvalidArgument").exit).toBe(2);
    expect(facesOf("Internal").exit).toBe(1);
  });
});

describe("the kinds of the REST contract", () => {
  /** Kind of an error and its HTTP status, as clients of Mayastor's API know them. */
  const statuses: Record<string, number> = {
    Timeout: 408,
    Deserialize: 400,
    Internal: 500,
    InvalidArgument: 400,
    DeadlineExceeded: 504,
    NotFound: 404,
    AlreadyExists: 422,
    PermissionDenied: 401,
    ResourceExhausted: 507,
    FailedPrecondition: 412,
    NotShared: 412,
    NotPublished: 412,
    AlreadyPublished: 412,
    AlreadyShared: 412,
    Aborted: 503,
    OutOfRange: 416,
    Unimplemented: 501,
    Unavailable: 503,
    Unauthenticated: 401,
    Unauthorized: 401,
    Conflict: 409,
    FailedPersist: 507,
    Deleting: 409,
    InUse: 409,
    CapacityLimitExceeded: 507,
    NotAcceptable: 406,
  };

  test("are all there, with the contract's status", () => {
    const ours = Object.fromEntries(errorCodes.map((code) => [code, facesOf(code).http]));
    expect(ours).toMatchObject(statuses);
  });
});

describe("an error", () => {
  test("keeps code, text and remedy across a border", () => {
    const error = new TrilithError("NoSpace", "pool p1 is full", "grow it");
    const body = toErrorBody(error);
    expect(body).toEqual({ kind: "NoSpace", message: "pool p1 is full", details: "grow it" });
    const again = fromErrorBody(JSON.parse(JSON.stringify(body)));
    expect(again).toBeInstanceOf(TrilithError);
    expect([again.code, again.message, again.remedy]).toEqual([
      "NoSpace",
      "pool p1 is full",
      "grow it",
    ]);
  });

  test("that is not of the list becomes `Internal` with its text", () => {
    const body = toErrorBody(new RangeError("index 7"));
    expect(body.kind).toBe("Internal");
    expect(body.message).toBe("index 7");
    expect(body.details).toContain("errors.test.ts");
    expect(toErrorBody("thrown text")).toEqual({
      kind: "Internal",
      message: "thrown text",
      details: "",
    });
    expect(toErrorBody(undefined).message).toBe("undefined");
  });
});

describe("an I/O status", () => {
  const statuses = Object.entries(IoStatus);

  test("has a number of its own, without gaps", () => {
    const numbers = statuses.map(([, status]) => status as number);
    expect(numbers.sort((a, b) => a - b)).toEqual(numbers.map((_, index) => index));
  });

  test("has the error code of its name, and that code's NVMe status", () => {
    for (const [name, status] of statuses) {
      if (status === IoStatus.OK) continue;
      const code = ioStatusCode(status);
      const plain = name.replaceAll("_", "").toLowerCase();
      const renamed: Record<string, string> = {
        invalid: "invalidargument",
        unsupported: "unimplemented",
      };
      expect(code.toLowerCase()).toBe(renamed[plain] ?? plain);
      expect(ioStatusNvme[status]).toBe(facesOf(code).nvme);
    }
    expect(ioStatusNvme[IoStatus.OK]).toBe(0);
    expect(ioStatusNvme.length).toBe(statuses.length);
    expect(ioStatusCode(200)).toBe("Internal");
  });

  test("becomes an error that says what was done, what went wrong and what to do", () => {
    for (const [, status] of statuses) {
      const error = ioError(status, "write to replica r1");
      expect(error.message).toMatch(/^write to replica r1: .{3,}/);
      expect(error.message).not.toContain("undefined");
      expect(error.code).toBe(ioStatusCode(status));
    }
    expect(ioError(IoStatus.NO_SPACE, "write").remedy).toContain("grow the pool");
    expect(ioError(200, "write").message).toBe("write: status 200");
  });
});

describe("an assertion", () => {
  test("throws what should have been true, and only when it is not", () => {
    assert(true, "never said");
    expect(() => assert(false, "a slot is free")).toThrow("assertion failed: a slot is free");
    expect(() => assert(false, "x")).toThrow(AssertionError);
    expect(() => unreachable("surprise" as never)).toThrow("unexpected value surprise");
  });
});
