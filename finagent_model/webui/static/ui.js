// The theme's button, and manners of what htmx swaps in.
(() => {
  const root = document.documentElement;
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const button = document.getElementById("theme");
  const say = () => button.setAttribute("aria-pressed", String(dark()));
  button.hidden = false;
  say();
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* for this page only */ }
    say();
    document.dispatchEvent(new Event("theme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    say();
    document.dispatchEvent(new Event("theme"));
  });

  // Only what our server says comes onto the page, of a refresh only what went well: what was there
  // stays otherwise. Nobody loses what they are typing to a refresh.
  const lost = document.getElementById("lost");
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    const refresh = target.matches("[data-polls]");
    const good = xhr.getResponseHeader("x-finagent") !== null && (!refresh || xhr.status < 300);
    const busy = refresh && target.querySelector("details.confirm[open]");
    if (!good || busy) event.detail.shouldSwap = false;
    lost.hidden = good;
  });
  document.body.addEventListener("htmx:sendError", () => { lost.hidden = false; });
})();
