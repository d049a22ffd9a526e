// Shared libraries are embedded by the bundler as files; the import yields a path that can be read.
declare module "*.so.2" {
  const path: string;
  // biome-ignore lint/style/noDefaultExport: a file import yields its path as the default export.
  export default path;
}
