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

  // Nobody loses what they are typing to a refresh.
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const target = event.detail.target;
    if (event.detail.requestConfig.triggeringEvent?.type === "submit") return;
    const busy = target.querySelector("details.confirm[open]");
    if (busy && target.matches("[data-polls]")) event.detail.shouldSwap = false;
  });
  const lost = document.getElementById("lost");
  document.body.addEventListener("htmx:sendError", () => { lost.hidden = false; });
  document.body.addEventListener("htmx:afterOnLoad", () => { lost.hidden = true; });
})();
