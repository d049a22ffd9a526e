/** Takes secrets out of what goes into a support bundle. Pure. */

const GONE = "(removed)";

/** Names of fields that may hold a secret, wherever they stand. */
const SECRET_NAME =
  /(secret|token|password|passphrase|private[-_]?key|dhchap|psk|credential|authorization|api[-_]?key)/i;
/** Names that look like the above and hold none. */
const HARMLESS_NAME = /^(next_token|starting_token)$/i;

/** Secrets inside texts: keys in PEM, bearer tokens, NVMe authentication keys, URIs with passwords. */
const SECRET_TEXTS: readonly [RegExp, string][] = [
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----/g, GONE],
  [/\b(Bearer\s+)[A-Za-z0-9._~+/=-]+/gi, `$1${GONE}`],
  [/\bDHHC-1:[0-9]{2}:[A-Za-z0-9+/=]+:/g, GONE],
  [/\bNVMeTLSkey-1:[0-9]{2}:[A-Za-z0-9+/=]+:/g, GONE],
  [/(:\/\/[^/\s:@]+:)[^/\s@]+@/g, `$1${GONE}@`],
  [/\b((?:secret|token|password|dhchap[a-z_]*|psk)["']?\s*[=:]\s*["']?)[^\s"',}]+/gi, `$1${GONE}`],
];

/** The value with everything that may be a secret replaced. */
export function redact(value: unknown): unknown {
  if (typeof value === "string") {
    return SECRET_TEXTS.reduce((text, [pattern, by]) => text.replace(pattern, by), value);
  }
  if (Array.isArray(value)) return value.map(redact);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => {
      const secret = SECRET_NAME.test(name) && !HARMLESS_NAME.test(name) && one !== null;
      return [name, secret ? GONE : redact(one)];
    }),
  );
}
