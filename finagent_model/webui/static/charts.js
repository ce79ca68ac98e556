// Prices with a decision's levels, and equity curves. Data come from `data-src`; colours from the
// page's style sheet, so that both themes fit.
(() => {
  const { createChart, createSeriesMarkers, CandlestickSeries, LineSeries, LineStyle } = LightweightCharts;
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g);
    return `rgb(${r}, ${g}, ${b})`;
  };
  const pale = (name) => colour(name).replace("rgb", "rgba").replace(")", ", 0.35)");

  const options = () => ({
    autoSize: true,
    layout: {
      background: { color: colour("card") },
      textColor: colour("soft"),
      fontFamily: "system-ui, sans-serif",
      attributionLogo: false, // it would bring a style of its own; the page's foot says it
    },
    grid: { vertLines: { visible: false }, horzLines: { color: colour("line") } },
    rightPriceScale: { borderVisible: false },
    timeScale: { borderVisible: false },
    crosshair: { mode: 0 },
    localization: { locale: "en-GB", dateFormat: "yyyy-MM-dd" },
    handleScroll: { mouseWheel: false },
    handleScale: { mouseWheel: false },
  });

  const fail = (box, text) => {
    const said = document.createElement("p");
    said.textContent = text;
    box.replaceChildren(said);
    box.removeAttribute("role");
    box.dataset.state = "failed";
  };
  const fetched = async (src) => {
    const answer = await fetch(src, { headers: { Accept: "application/json" } });
    const body = await answer.json().catch(() => null);
    if (body === null) throw new Error(`The server does not answer as it should (HTTP ${answer.status}).`);
    if (!answer.ok) throw new Error(body.message);
    return body;
  };
  const themed = (draw) => {
    let remove = draw();
    document.addEventListener("theme", () => { remove(); remove = draw(); });
    return () => { remove(); remove = draw(); };
  };

  const prices = (box) => {
    const levels = JSON.parse(document.getElementById("levels").textContent);
    let data = null;
    const draw = () => {
      box.replaceChildren();
      const chart = createChart(box, options());
      const candles = chart.addSeries(CandlestickSeries, {
        upColor: colour("good"), downColor: colour("bad"), borderVisible: false,
        wickUpColor: colour("good"), wickDownColor: colour("bad"),
        lastValueVisible: false, priceLineVisible: false,
        autoscaleInfoProvider: (original) => {
          const found = original();
          if (!found) return found;
          const shown = levels.map((level) => level.price);
          return { ...found, priceRange: {
            minValue: Math.min(found.priceRange.minValue, ...shown),
            maxValue: Math.max(found.priceRange.maxValue, ...shown),
          } };
        },
      });
      const after = data.later.map((bar) => {
        const tone = pale(bar.close >= bar.open ? "good" : "bad");
        return { ...bar, color: tone, wickColor: tone };
      });
      candles.setData([...data.seen, ...after]);
      for (const level of levels) {
        const acted = level.tone !== "soft"; // support and resistance are only told
        candles.createPriceLine({
          price: level.price, title: level.name, color: colour(level.tone), lineWidth: 1,
          lineStyle: acted ? LineStyle.Dashed : LineStyle.SparseDotted, axisLabelVisible: acted,
        });
      }
      const last = data.seen.at(-1);
      // Bars within a day come with seconds, longer ones with a date.
      chart.applyOptions({ timeScale: { timeVisible: typeof last.time === "number" } });
      createSeriesMarkers(candles, [{
        time: last.time, position: "aboveBar", shape: "arrowDown",
        color: colour("ink"), text: "decided",
      }]);
      const shown = data.seen.length + after.length;
      chart.timeScale().setVisibleLogicalRange({ from: -0.5, to: shown + Math.round(shown / 9) });
      box.dataset.state = "drawn";
      return () => chart.remove();
    };
    const hindsight = document.getElementById("hindsight");
    const say = (text) => { hindsight.textContent = text; hindsight.hidden = !text; };
    const after = () => {
      const pale = "Pale bars came after the decision; the desk could not see them.";
      return [data.later.length ? pale : "No bar after the decision is known here.", data.note ?? ""].join(" ");
    };
    let again = null;
    // Whether it worked; where it did not, a chart that is there stays.
    const load = async (later) => {
      try {
        data = await fetched(box.dataset.src + (later ? "?later=1" : ""));
      } catch (error) {
        if (again) say(error.message); else fail(box, error.message);
        return false;
      }
      if (again) again(); else again = themed(draw);
      box.dataset.later = String(data.later.length);
      say(later ? after() : "");
      return true;
    };
    const toggle = document.getElementById("later");
    toggle.addEventListener("click", async () => {
      const on = toggle.getAttribute("aria-pressed") !== "true";
      if (await load(on)) toggle.setAttribute("aria-pressed", String(on));
    });
    load(false).then((worked) => { toggle.hidden = !worked; });
  };

  const TONES = ["accent", "warn", "good", "bad", "ink"]; // as many as may be compared
  const curves = async (box) => {
    let data;
    try {
      data = await fetched(box.dataset.src);
    } catch (error) {
      fail(box, error.message);
      return;
    }
    if (!data.curves.some((curve) => curve.points.length)) {
      fail(box, "No equity curve: nothing was decided on unseen days, or not yet.");
      return;
    }
    const short = data.curves.filter((curve) => curve.short);
    if (short.length) {
      const said = document.createElement("p");
      said.className = "note warn";
      said.textContent = short.map((curve) => `${curve.name}: ${curve.short}.`).join(" ");
      box.after(said);
    }
    themed(() => {
      box.replaceChildren();
      const chart = createChart(box, options());
      const add = (curve, tone, lineWidth) => {
        const style = { color: colour(tone), lineWidth, priceLineVisible: false, title: curve.name };
        chart.addSeries(LineSeries, style).setData(curve.points);
      };
      const times = data.held.points.concat(...data.curves.map((curve) => curve.points));
      chart.applyOptions({ timeScale: { timeVisible: typeof times[0]?.time === "number" } });
      add(data.held, "soft", 1);
      data.curves.forEach((curve, i) => add(curve, TONES[i], 2));
      chart.timeScale().fitContent();
      box.dataset.state = "drawn";
      return () => chart.remove();
    });
  };

  document.querySelectorAll("[data-chart=prices]").forEach(prices);
  document.querySelectorAll("[data-chart=curves]").forEach(curves);
})();
