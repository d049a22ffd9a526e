// Files in systemd/ and images/ are embedded as text; the import yields their contents.
declare module "*.service" {
  const text: string;
  // biome-ignore lint/style/noDefaultExport: a text import yields its text as the default export.
  export default text;
}
declare module "*.preset" {
  const text: string;
  // biome-ignore lint/style/noDefaultExport: a text import yields its text as the default export.
  export default text;
}
declare module "*.conf" {
  const text: string;
  // biome-ignore lint/style/noDefaultExport: a text import yields its text as the default export.
  export default text;
}
declare module "*.yaml" {
  const text: string;
  // biome-ignore lint/style/noDefaultExport: a text import yields its text as the default export.
  export default text;
}
