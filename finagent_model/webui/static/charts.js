// Prices with a decision's levels, and curves in panes. Data come from the JSON at `data-src` or from
// the script element whose id is `data-json`; colours from the page's style sheet, so that both
// themes fit. The report of a training carries this file inside it.
(() => {
  const { createChart, createSeriesMarkers, CandlestickSeries, HistogramSeries, LineSeries, LineStyle, PriceScaleMode } = LightweightCharts;
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g);
    return `rgb(${r}, ${g}, ${b})`;
  };
  const pale = (name, alpha = 0.35) => colour(name).replace("rgb", "rgba").replace(")", `, ${alpha})`);

  const options = () => ({
    autoSize: true,
    layout: {
      background: { color: colour("card") },
      textColor: colour("soft"),
      fontFamily: "system-ui, sans-serif",
      attributionLogo: false, // it would bring a style of its own; the page's foot says it
      panes: { separatorColor: colour("line"), enableResize: false },
    },
    grid: { vertLines: { visible: false }, horzLines: { color: colour("line") } },
    rightPriceScale: { borderVisible: false },
    // The library's least spacing, half a pixel, would cut years of history off on a phone.
    // A window that turns narrow keeps the same days: they are drawn closer.
    timeScale: { borderVisible: false, minBarSpacing: 0.001, lockVisibleTimeRangeOnResize: true },
    crosshair: { mode: 0 },
    localization: { locale: "en-GB", dateFormat: "yyyy-MM-dd" },
    handleScroll: { mouseWheel: false, vertTouchDrag: false },
    handleScale: { mouseWheel: false },
  });

  const fail = (box, text) => {
    const message = document.createElement("p");
    message.textContent = text;
    box.replaceChildren(message);
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
    const again = () => { remove(); remove = draw(); };
    document.addEventListener("theme", again);
    return again;
  };
  // A line of values over the chart's own place, which keeps its height whatever the line says.
  // Screen readers have the table or the caption instead.
  const place = (box) => {
    const line = document.createElement("div"), canvas = document.createElement("div");
    line.className = "readout";
    line.setAttribute("aria-hidden", "true");
    canvas.className = "canvas";
    box.replaceChildren(line, canvas);
    return { line, canvas };
  };
  const price = (value) => value.toLocaleString("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const percent = (value) => `${value < -0.0005 ? "\u2212" : ""}${(100 * Math.abs(value)).toFixed(1)} %`;
  const FORMATS = {
    factor: (value) => value.toFixed(Math.abs(value) < 0.1 ? 4 : 2),
    percent,
    number: (value) => value.toFixed(2),
    price,
  };
  const text = (parent, tone, words) => {
    const part = document.createElement("span");
    part.textContent = words;
    if (tone) part.className = `tone-${tone}`;
    parent.append(part, " ");
  };

  // Vertical dotted lines behind a series.
  const verticals = (chart, times, tone) => ({
    paneViews: () => [{
      zOrder: () => "bottom",
      renderer: () => ({
        draw: (target) => target.useBitmapCoordinateSpace(({ context, bitmapSize, horizontalPixelRatio, verticalPixelRatio }) => {
          context.strokeStyle = tone;
          context.lineWidth = Math.max(1, Math.floor(horizontalPixelRatio));
          context.setLineDash([2 * verticalPixelRatio, 3 * verticalPixelRatio]);
          for (const time of times) {
            const x = chart.timeScale().timeToCoordinate(time);
            if (x === null) continue;
            const at = Math.round(x * horizontalPixelRatio) + 0.5;
            context.beginPath();
            context.moveTo(at, 0);
            context.lineTo(at, bitmapSize.height);
            context.stroke();
          }
        }),
      }),
    }],
  });

  // Levels that leave the bars most of the height; the others are named, not drawn.
  const BARS_SHARE = 0.55;
  const split = (bars, levels) => {
    let low = Math.min(...bars.map((bar) => bar.low)), high = Math.max(...bars.map((bar) => bar.high));
    const most = Math.max(high - low, high * 1e-6) / BARS_SHARE;
    const away = (level) => Math.max(low - level.price, level.price - high, 0);
    const near = [], far = [];
    for (const level of [...levels].sort((a, b) => away(a) - away(b))) {
      const [down, up] = [Math.min(low, level.price), Math.max(high, level.price)];
      if (up - down <= most) { near.push(level); low = down; high = up; } else far.push(level);
    }
    return { near, far, low, high };
  };
  const MARK_ROOM = 52; // pixels that half of a marker's words take
  const LETTER_WIDTH = 8; // pixels of a letter in the name of a level, its margin included
  const MARKS = {
    BUY: { position: "belowBar", shape: "arrowUp", tone: "good" },
    SELL: { position: "aboveBar", shape: "arrowDown", tone: "bad" },
  };

  const prices = (box) => {
    const levels = JSON.parse(document.getElementById("levels").textContent);
    let data = null;
    const draw = () => {
      const { line, canvas } = place(box);
      const chart = createChart(canvas, options());
      const { near, far, low, high } = split([...data.seen, ...data.later], levels);
      const candles = chart.addSeries(CandlestickSeries, {
        upColor: colour("good"), downColor: colour("bad"), borderVisible: false,
        wickUpColor: colour("good"), wickDownColor: colour("bad"),
        lastValueVisible: false, priceLineVisible: false,
        // The room below the bars may reach under 0, where there is no price.
        priceFormat: { type: "custom", minMove: 0.01, formatter: (value) => (value < 0 ? "" : value.toFixed(2)) },
        autoscaleInfoProvider: () => ({ priceRange: { minValue: low, maxValue: high } }),
      });
      candles.priceScale().applyOptions({ scaleMargins: { top: 0.12, bottom: 0.2 } });
      const after = data.later.map((bar) => {
        const tone = pale(bar.close >= bar.open ? "good" : "bad");
        return { ...bar, color: tone, wickColor: tone };
      });
      const bars = [...data.seen, ...data.later];
      candles.setData([...data.seen, ...after]);
      if (bars.some((bar) => bar.volume)) {
        const volume = chart.addSeries(HistogramSeries, {
          priceScaleId: "volume", priceFormat: { type: "volume" }, color: pale("soft"),
          lastValueVisible: false, priceLineVisible: false,
        });
        volume.priceScale().applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
        // A day without a known volume has no column: that is not a volume of 0.
        volume.setData(bars.map(({ time, volume: value }) => (value ? { time, value } : { time })));
      }
      for (const level of near) {
        const acted = level.tone !== "soft"; // support and resistance are only told
        candles.createPriceLine({
          price: level.price, title: level.name, color: colour(level.tone), lineWidth: 1,
          lineStyle: acted ? LineStyle.Dashed : LineStyle.SparseDotted, axisLabelVisible: acted,
        });
      }
      const last = data.seen.at(-1);
      // Bars within a day come with seconds, longer ones with a date.
      chart.applyOptions({ timeScale: { timeVisible: typeof last.time === "number" } });
      const mark = MARKS[data.action] ?? { position: "aboveBar", shape: "circle", tone: "ink" };
      createSeriesMarkers(candles, [{
        time: last.time, position: mark.position, shape: mark.shape, color: colour(mark.tone),
        text: data.action ? `${data.action} decided` : "no decision",
      }]);
      const outside = document.createElement("div");
      outside.className = "outside";
      for (const level of far) {
        const up = level.price > high;
        text(outside, level.tone, `${up ? "\u2191" : "\u2193"} ${level.name} ${price(level.price)} (${up ? "+" : ""}${percent(level.price / last.close - 1)}), ${up ? "above" : "below"} this chart`);
      }
      canvas.append(outside);
      const byTime = new Map(bars.map((bar) => [bar.time, bar]));
      const show = (bar) => {
        line.replaceChildren();
        text(line, "", typeof bar.time === "number" ? new Date(bar.time * 1000).toISOString().slice(0, 16).replace("T", " ") : bar.time);
        for (const name of ["open", "high", "low", "close"]) text(line, "", `${name[0].toUpperCase()} ${price(bar[name])}`);
        text(line, "", bar.volume ? `V ${Math.round(bar.volume).toLocaleString("en-GB")}` : "V unknown");
        if (bar.time > last.time) text(line, "warn", "after the decision");
      };
      show(last);
      chart.subscribeCrosshairMove(({ time }) => show(byTime.get(time) ?? last));
      // The marker's words are centred on the last bar that was seen: they need room beside it.
      const width = chart.timeScale().width();
      // Names of levels stand between it and the axis.
      const named = near.filter((level) => level.tone !== "soft").map((level) => level.name.length);
      const room = MARK_ROOM + LETTER_WIDTH * Math.max(0, ...named);
      const beside = Math.ceil((bars.length * room) / Math.max(width - room, room)) - data.later.length;
      chart.timeScale().setVisibleLogicalRange({ from: -0.5, to: bars.length + Math.max(Math.round(bars.length / 9), beside) });
      // Pixels right of the marker, once the range is in force.
      requestAnimationFrame(() => { box.dataset.beside = String(Math.round(chart.timeScale().width() - chart.timeScale().timeToCoordinate(last.time))); });
      box.dataset.drawn = String(bars.length);
      box.dataset.state = "drawn";
      return () => chart.remove();
    };
    const hindsight = document.getElementById("hindsight");
    const say = (words) => { hindsight.textContent = words; hindsight.hidden = !words; };
    const after = () => {
      const note = "Pale bars came after the decision; the desk could not see them.";
      const known = data.later.length ? note : "No bar after the decision is known here.";
      return [data.outcome ?? "", known, data.note ?? ""].filter(Boolean).join(" ");
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

  // Panes of lines over the same days: `days`, and by pane `series` with a value a day (null: none).
  const lines = async (box) => {
    let data;
    try {
      data = box.dataset.src ? await fetched(box.dataset.src) : JSON.parse(document.getElementById(box.dataset.json).textContent);
    } catch (error) {
      fail(box, error.message);
      return;
    }
    if (!data.days.length) {
      fail(box, data.empty ?? "Nothing to draw: there is no out-of-sample day.");
      return;
    }
    if (data.incomplete) {
      const message = document.createElement("p");
      message.className = "note warn";
      message.textContent = data.incomplete;
      box.after(message);
    }
    let isLog = false;
    const draw = () => {
      const { line, canvas } = place(box);
      const chart = createChart(canvas, options());
      const drawn = [];
      data.panes.forEach((pane, number) => {
        const format = FORMATS[pane.format];
        for (const each of pane.series) {
          const series = chart.addSeries(LineSeries, {
            color: colour(each.tone), lineWidth: each.width ?? 1, priceLineVisible: false,
            lastValueVisible: number === 0 && !each.plain, title: number === 0 && !each.plain ? each.name : "",
            priceFormat: { type: "custom", minMove: 0.0001, formatter: format },
            crosshairMarkerVisible: data.days.length > 1,
          }, number);
          const points = data.days.map((time, i) => (each.values[i] === null ? { time } : { time, value: each.values[i] }));
          series.setData(points);
          if (data.marks && number === 0) {
            createSeriesMarkers(series, data.marks.map((mark) => ({ ...mark, color: colour(mark.tone), text: "", price: mark.price })));
          }
          drawn.push({ ...each, series, format, pane });
        }
        const first = drawn.find((each) => each.pane === pane);
        if (pane.log && isLog) first.series.priceScale().applyOptions({ mode: PriceScaleMode.Logarithmic });
        first.series.priceScale().applyOptions({ scaleMargins: { top: number ? 0.08 : 0.14, bottom: 0.06 } });
        if (pane.level !== undefined) {
          first.series.createPriceLine({ price: pane.level, color: colour("soft"), lineWidth: 1, lineStyle: LineStyle.SparseDotted, axisLabelVisible: false });
        }
        if (data.folds?.length) first.series.attachPrimitive(verticals(chart, data.folds, pale("soft", 0.5)));
      });
      chart.panes().forEach((pane, number) => pane.setStretchFactor(data.panes[number].weight ?? 1));
      const number = (each) => data.panes.indexOf(each.pane);
      const at = new Map(data.days.map((day, i) => [day, i]));
      const show = (i) => {
        line.replaceChildren();
        text(line, "", data.days[i]);
        let named = null;
        for (const each of drawn) {
          if (each.values[i] === null) continue;
          // Below the first pane the tones tell whose value it is; the pane is named once.
          const isNew = each.pane.name && each.pane !== named;
          named = each.pane;
          text(line, each.tone, `${isNew ? `${each.pane.name} ` : ""}${number(each) ? "" : `${each.name} `}${each.format(each.values[i])}`);
        }
        for (const mark of data.marks ?? []) if (mark.time === data.days[i]) text(line, mark.tone, mark.words);
      };
      show(data.days.length - 1);
      chart.subscribeCrosshairMove(({ time }) => show(at.get(time) ?? data.days.length - 1));
      chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
        if (range) box.dataset.shown = String(Math.ceil(range.to - range.from));
      });
      chart.timeScale().fitContent();
      box.dataset.drawn = String(data.days.length);
      box.dataset.state = "drawn";
      return () => chart.remove();
    };
    const again = themed(draw);
    const toggle = box.closest("figure")?.parentElement.querySelector("[data-log]");
    if (toggle) {
      toggle.hidden = false;
      toggle.addEventListener("click", () => {
        isLog = !isLog;
        toggle.setAttribute("aria-pressed", String(isLog));
        again();
      });
    }
  };

  document.querySelectorAll("[data-chart=prices]").forEach(prices);
  document.querySelectorAll("[data-chart=curves]").forEach(lines);
})();
