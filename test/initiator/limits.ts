/** Every bound of the initiator tests. Reaching a time limit fails the test that waits. */

/** Memory and CPUs of a guest. The kernel makes one I/O queue per CPU. */
export const GUEST_MEMORY_MIB = 1024;
export const GUEST_CPUS = 2;
/** Scripts that may run at once in a guest; one more waits for its turn. */
export const GUEST_LANES = 4;
/** From starting QEMU until the guest answers. It takes about 4 s on an idle machine. */
export const BOOT_TIMEOUT_MS = 120_000;
/** One script in the guest, unless it is given another. */
export const SCRIPT_TIMEOUT_MS = 60_000;
/**
 * One test. Longer than its scripts together may take: they have limits of their own, whose errors
 * say more than that of the test runner, which also ends every process the tests started.
 */
export const TEST_TIMEOUT_MS = 300_000;
/** Copying a file of the executable's size into a guest. */
export const COPY_TIMEOUT_MS = 120_000;
/** A load that goes on while something happens to the engine. */
export const LOAD_TIMEOUT_MS = 240_000;
/** Faults that strike one after the other, and how many at night. */
export const FAULTS_TIMEOUT_MS = process.env.TRILITH_NIGHTLY === "1" ? 4 * 3_600_000 : 600_000;
export const FAULT_CYCLES_NIGHTLY = 100;
/** From asking a guest to power off until it is killed. */
export const POWER_OFF_TIMEOUT_MS = 10_000;
/** Lines of the guest's console that an error quotes. */
export const CONSOLE_LINES_QUOTED = 40;
/** Lines of a script's output that an error quotes. */
export const OUTPUT_LINES_QUOTED = 60;
/** Building the guest image: downloads included, once per machine. */
export const IMAGE_BUILD_TIMEOUT_MS = 900_000;
/** An image of an older builder is removed when it is older. */
export const IMAGE_KEPT_MS = 7 * 24 * 3_600_000;
/** From starting an engine until it answers, and from telling it to stop until it has. */
export const ENGINE_TIMEOUT_MS = 30_000;
/** How often an engine that starts is asked whether it is there. */
export const ENGINE_POLL_MS = 20;
/** Until engines report what a test waits for, rebuilds included, and how often they are asked. */
export const CONDITION_TIMEOUT_MS = 90_000;
export const CONDITION_POLL_MS = 100;
/** Lines of an engine's log that an error quotes. */
export const LOG_LINES_QUOTED = 40;
/** Starting a guest and engines, the first time with building the image. */
export const SET_UP_TIMEOUT_MS = IMAGE_BUILD_TIMEOUT_MS + BOOT_TIMEOUT_MS;
