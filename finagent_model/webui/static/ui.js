// The theme's button, what htmx may swap in, countdowns, and how many decisions wait.
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

  // Deadlines count down; without a script the server's own words stay.
  const left = (seconds) => {
    if (seconds <= 0) return "expired";
    const days = Math.floor(seconds / 86400), hours = Math.floor((seconds % 86400) / 3600);
    const minutes = Math.floor((seconds % 3600) / 60), rest = Math.floor(seconds % 60);
    if (days) return `${days} d ${hours} h left`;
    return hours ? `${hours} h ${minutes} min left` : minutes ? `${minutes} min ${rest} s left` : `${rest} s left`;
  };
  const count = () => {
    for (const each of document.querySelectorAll("[data-deadline]")) {
      const until = new Date(each.dataset.deadline);
      each.textContent = left((until - Date.now()) / 1000);
      each.title = `until ${until.toLocaleString()} of your clock`;
    }
  };
  count();
  setInterval(count, 1000);
  const ahead = -new Date().getTimezoneOffset() / 60;
  if (ahead) document.getElementById("offset").textContent = `; your clock is ${Math.abs(ahead)} h ${ahead > 0 ? "ahead" : "behind"}`;

  // The tab, the menu and, if it was asked for, a notification say how many decisions wait.
  const body = document.body, badge = document.getElementById("waiting"), plain = document.title.replace(/^\(\d+\) /, "");
  const wanted = () => {
    try { return localStorage.getItem("notify") === "yes"; } catch { return false; }
  };
  const tell = (waiting) => {
    const before = Number(body.dataset.waiting || 0);
    body.dataset.waiting = waiting;
    document.title = waiting ? `(${waiting}) ${plain}` : plain;
    badge.hidden = !waiting;
    badge.firstElementChild.textContent = waiting || "";
    if (waiting > before && wanted() && "Notification" in window && Notification.permission === "granted") {
      new Notification("finagent", { body: waiting === 1 ? "A decision waits for you" : `${waiting} decisions wait for you`, tag: "waiting" });
    }
  };
  if ("waiting" in body.dataset) {
    setInterval(async () => {
      if (document.hidden && !wanted()) return;
      try {
        const answer = await fetch("/waiting.json");
        if (answer.ok && answer.headers.get("x-finagent") !== null) tell((await answer.json()).waiting);
      } catch { /* the next one may be answered */ }
    }, 15000);
  }
  const notify = document.getElementById("notify");
  if (notify && "Notification" in window) {
    const show = () => notify.setAttribute("aria-pressed", String(wanted() && Notification.permission === "granted"));
    notify.hidden = false;
    show();
    notify.addEventListener("click", async () => {
      const on = !wanted() && (await Notification.requestPermission()) === "granted";
      try { localStorage.setItem("notify", on ? "yes" : "no"); } catch { /* not without storage */ }
      show();
    });
  }
})();
