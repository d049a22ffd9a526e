/** The explorer: one page that lists the operations of the document and calls them. */
import { createHash } from "node:crypto";
import text from "./explorer.html" with { type: "text" };

// Bun's types know pages as bundles; imported as text it is its text.
const page = text as unknown as string;

/** The page as it is sent. */
export function explorerPage(): string {
  return page;
}

/** Digest of the text of the page's only element of that name. */
function digestOf(element: "script" | "style"): string {
  const text = page.slice(
    page.indexOf(`<${element}>`) + element.length + 2,
    page.indexOf(`</${element}>`),
  );
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}

/** Nothing comes from elsewhere, nothing goes elsewhere, and nobody frames the page. */
export const explorerHeaders: Record<string, string> = {
  "Content-Security-Policy": [
    "default-src 'none'",
    `script-src ${digestOf("script")}`,
    `style-src ${digestOf("style")}`,
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "Cache-Control": "no-cache",
  "Referrer-Policy": "no-referrer",
};
