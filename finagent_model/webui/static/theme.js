// Before the first paint: the theme that was chosen here; without a choice it is the system's.
(() => {
  const root = document.documentElement;
  try {
    const kept = localStorage.getItem("theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* no storage: the system's */ }
})();
