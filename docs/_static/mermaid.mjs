// Mermaid 11.17.2 (@mermaid-js/tiny) as the module that sphinxcontrib-mermaid imports; nothing comes from a CDN.
await new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = new URL("vendor/mermaid.tiny.js", import.meta.url);
  script.onload = resolve;
  script.onerror = reject;
  document.head.append(script);
});
export default globalThis.mermaid;
