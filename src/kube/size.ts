/** Sizes as Kubernetes and people write them. */

const factors: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  p: 1e15,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
  ti: 2 ** 40,
  pi: 2 ** 50,
};

/**
 * Bytes of `10737418240`, `10GiB`, `10Gi`, `1.5T`, `500MB`: binary units with an i, decimal ones
 * without, as in Kubernetes. Undefined when it is no size.
 */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgtp]i?)?b?$/i.exec(text.trim());
  if (match === null) return undefined;
  const bytes = Number(match[1]) * factors[(match[2] ?? "").toLowerCase()]!;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
