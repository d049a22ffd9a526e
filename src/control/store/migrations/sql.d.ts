/** Migrations are imported as text (`with { type: "text" }`), so that the executable carries them. */
declare module "*.sql" {
  const text: string;
  // biome-ignore lint/style/noDefaultExport: the shape that the import attribute gives.
  export default text;
}
