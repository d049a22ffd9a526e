/**
 * CRC-32C (Castagnoli, reflected 0x82F63B78) of a text's UTF-8 form, for records of the log. The
 * engine has it from a native library, which the control process does not load.
 */

const POLYNOMIAL = 0x82f63b78;

const table = Int32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) {
    remainder = remainder & 1 ? (remainder >>> 1) ^ POLYNOMIAL : remainder >>> 1;
  }
  return remainder;
});

const encoder = new TextEncoder();

/** The checksum as an unsigned 32-bit number. */
export function crc32cOfText(text: string): number {
  const bytes = encoder.encode(text);
  let crc = -1;
  for (let at = 0; at < bytes.length; at++) {
    crc = (crc >>> 8) ^ table[(crc ^ bytes[at]!) & 0xff]!;
  }
  return ~crc >>> 0;
}
