"use strict";
// Draws /api/v1/state. Whatever it says is put in as text: names come from tenants.
(() => {
  const POLL_MS = 2000;
  const STALE_MS = 10000;
  const PAGE_ROWS = 100;
  const ROWS_MAX = 1000;
  const COLOURS = 8;
  const SVG = "http://www.w3.org/2000/svg";
  const WORDS = {
    serving: ["good", "serving"], draining: ["warn", "draining"], empty: ["", "no pod here"],
    leaving: ["", "leaving"], refused: ["bad", "not served"],
  };

  const $ = (id) => document.getElementById(id);
  let limit = PAGE_ROWS;
  let before = null;
  let answeredAt = 0;
  let asking = null;
  let drawn = 0;

  // Elements. A child that is no element becomes text.
  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const draw = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
  const put = (element, ...children) => element.replaceChildren(...children.filter((child) => child !== null));
  const text = (element, words) => { if (element.textContent !== words) element.textContent = words; };

  // Numbers for people.
  const whole = (number) => Math.round(number).toLocaleString("en-US").replaceAll(",", " ");
  const scaled = (number, step, units) => {
    let unit = 0;
    while (number >= step && unit < units.length - 1) { number /= step; unit += 1; }
    const digits = number >= 100 || unit === 0 && Number.isInteger(number) ? 0 : number >= 10 ? 1 : 2;
    return number.toFixed(digits) + units[unit];
  };
  const short = (number) => (number < 10000 ? whole(number) : scaled(number, 1000, ["", " k", " M", " G", " T"]));
  const rate = (number) => (number === 0 ? "0" : number < 1 ? number.toFixed(2) : scaled(number, 1000, ["", " k", " M", " G"]));
  const bytes = (number) => scaled(number, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]);
  const percent = (part) => {
    const value = part * 100;
    return (value > 0 && value < 1 ? "<1" : value > 99 && value < 100 ? value.toFixed(1) : Math.round(value)) + " %";
  };
  const span = (seconds) => {
    if (seconds < 90) return Math.round(seconds) + " s";
    if (seconds < 5400) return Math.round(seconds / 60) + " min";
    return (seconds / 3600).toFixed(1) + " h";
  };
  const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);
  const plural = (count, one, many) => whole(count) + " " + (count === 1 ? one : many);

  // A bar from 0 to 1, with its amount in words.
  const gauge = (part, kind, words) => {
    const width = part > 0 ? Math.max(2, Math.min(1, part) * 110) : 0;
    const picture = draw("svg", { viewBox: "0 0 110 10", "aria-hidden": "true" },
      draw("rect", { class: "track", width: 110, height: 10 }),
      draw("rect", { class: "fill-" + kind, width: width.toFixed(1), height: 10 }));
    return make("div", { class: "gauge" }, picture, make("span", { class: "amount" }, words));
  };
  const badge = (kind, words) => make("span", { class: "badge " + kind }, words);

  const sum = (numbers) => numbers.reduce((all, number) => all + number, 0);
  const lastOf = (numbers, count) => sum(numbers.slice(-count));

  const verdict = (state) => {
    const { agent } = state;
    const trouble = state.refusals_total;
    if (!agent.is_healthy) return ["bad", "The agent hangs: changes wait. What was served before goes on"];
    if (agent.in_sync_at_s === 0) return ["warn", "Starting: nothing is served by this agent yet"];
    if (!agent.is_ready) return ["warn", "Not ready: programs of another version serve, or a change waits"];
    const served = "Serving " + plural(agent.services, "service", "services") + " with " + plural(agent.backends, "backend", "backends");
    if (trouble > 0) return ["warn", served + "; " + plural(trouble, "thing is", "things are") + " not done"];
    return ["good", served];
  };

  const head = (state) => {
    const { agent } = state;
    const [kind, words] = verdict(state);
    $("verdict").className = "verdict " + kind;
    text($("verdict"), words);
    text($("node"), agent.node_name);
    const synced = agent.in_sync_at_s === 0 ? "never in sync" : "in sync " + span(Math.max(0, agent.now_s - agent.in_sync_at_s)) + " ago";
    text($("uplinks"), ["version " + agent.version, ...agent.uplinks, synced].join("  ·  "));
    document.title = (kind === "good" ? "" : "! ") + agent.node_name + " · xlb";
  };

  const complaint = (refusal) => make("li", {}, make("b", {}, refusal.object), ": " + refusal.why);

  const warnings = (state) => {
    $("warnings").hidden = state.refusals_total === 0;
    put($("warning-list"), ...state.refusals.slice(0, 20).map(complaint));
    const left = state.refusals_total - Math.min(20, state.refusals.length);
    $("warnings-more").hidden = left === 0;
    text($("warnings-more"), "and " + whole(left) + " more: api/v1/state has the first 200, xlb inspect all of them");
    $("waiting").hidden = state.waiting_total === 0;
    put($("waiting-list"), ...state.waiting.slice(0, 20).map(complaint));
  };

  const tiles = (state) => {
    const { history } = state;
    const minute = Math.min(6, history.begun_s.length);
    const seconds = minute === 0 ? 0 : history.ended_s - history.begun_s[history.begun_s.length - minute];
    const each = (numbers) => (seconds > 0 ? lastOf(numbers, minute) / seconds : null);
    const drops = Object.values(history.drops).map((numbers) => lastOf(numbers, minute));
    const flows = sum(state.maps.filter((map) => /FLOWS_V[46]$/.test(map.map) && !map.map.startsWith("INSIDE")).map((map) => map.entries));
    const perSecond = (value) => (value === null ? "…" : rate(value) + "/s");
    const over = seconds > 0 ? "over the last " + span(seconds) : "after two samples";
    const tile = (name, value, more, kind = "") => make("div", { class: kind }, make("dt", {}, name), make("dd", {}, value, make("small", {}, more)));
    const dropped = seconds > 0 ? sum(drops) / seconds : null;
    put($("tiles"),
      tile("Packets to pods", perSecond(each(history.delivered)), over),
      tile("Packets to clients", perSecond(each(history.replied)), over),
      tile("Dropped or refused", perSecond(dropped), over, dropped > 0 ? "bad" : ""),
      tile("Open flows", short(flows), "TCP, UDP and SCTP"),
      tile("Frontends", short(state.agent.frontends), plural(state.agent.services, "service", "services") + ", " + plural(state.agent.backends, "backend", "backends")));
  };

  const speeds = (service, state) => {
    const was = before && before.services.get(service.name);
    const seconds = before ? state.agent.now_s - before.now_s : 0;
    if (!service.traffic || !was || seconds <= 0) return null;
    const of = (name) => Math.max(0, service.traffic[name] - was[name]) / seconds;
    return { toPods: of("packets_to_pods"), toClients: of("packets_to_clients"), bytesIn: of("bytes_to_pods"), bytesOut: of("bytes_to_clients") };
  };

  const moved = (packets, volume, speed, speedBytes) => {
    const now = speed === undefined ? "" : rate(speed) + "/s, " + bytes(speedBytes) + "/s";
    return make("td", { class: "number" }, make("div", {}, now), make("div", { class: "note" }, short(packets) + " packets, " + bytes(volume)));
  };

  const serviceRow = (service, state) => {
    const [kind, word] = WORDS[service.state] || ["", service.state];
    const flows = sum(service.backends.map((backend) => backend.flows || 0));
    const now = speeds(service, state) || {};
    const { traffic } = service;
    const modes = service.delivery === null ? null : make("div", { class: "note" }, service.delivery);
    const slots = service.backends.length === 0 ? "" : service.slots === 0 ? "the only backend" : whole(service.slots) + " slots";
    const why = service.why === null ? null : make("div", { class: "note" }, service.why);
    const standing = [badge(service.warnings.length > 0 && kind === "good" ? "warn" : kind, word), modes, why];
    const shares = service.backends.length === 0 ? [make("td", { colspan: 3 }, ...standing)]
      : [make("td", {}, ...standing), make("td", { class: "quiet" }, slots), make("td", {}, whole(flows))];
    return make("tr", { class: "service" },
      make("th", { scope: "rowgroup" }, service.name,
        make("div", { class: "address vips" }, service.frontends.join("  "))),
      ...shares,
      traffic ? moved(traffic.packets_to_pods, traffic.bytes_to_pods, now.toPods, now.bytesIn) : make("td", {}),
      traffic ? moved(traffic.packets_to_clients, traffic.bytes_to_clients, now.toClients, now.bytesOut) : make("td", {}));
  };

  const backendRow = (backend, service, flows) => {
    const takesNew = backend.share > 0;
    const way = backend.delivery + (backend.interface === null ? "" : " by " + backend.interface) + (backend.sockets_hidden ? ", sockets hidden" : "");
    const held = backend.flows === null ? "" : gauge(flows === 0 ? 0 : backend.flows / flows, "flow",
      whole(backend.flows) + (flows === 0 ? "" : "  (" + percent(backend.flows / flows) + ")"));
    return make("tr", { class: "backend" },
      make("th", { scope: "row" }, make("span", { class: "address" }, backend.address)),
      make("td", { class: "note" }, takesNew ? way : "draining, " + way),
      make("td", {}, takesNew || service.slots > 0 ? gauge(backend.share, "part", percent(backend.share)) : ""),
      make("td", {}, held), make("td", {}), make("td", {}));
  };

  const services = (state) => {
    const { rows, found, total } = state.services;
    const bodies = rows.map((service) => {
      const flows = sum(service.backends.map((backend) => backend.flows || 0));
      return make("tbody", {}, serviceRow(service, state), ...service.backends.map((backend) => backendRow(backend, service, flows)));
    });
    for (const body of [...$("services").tBodies]) body.remove();
    $("services").append(...bodies);
    const some = found === total ? "" : ", of " + whole(total) + " in all";
    text($("services-shown"), rows.length === found ? plural(found, "service", "services") + some : "the first " + whole(rows.length) + " of " + whole(found) + some);
    $("more").hidden = rows.length === found || limit >= ROWS_MAX;
  };

  // Axes of a chart of the time that is kept: at least ten minutes wide.
  const WIDTH = 600, HEIGHT = 150, LEFT = 44, BOTTOM = 18, TOP = 8;
  const scene = (history, highest) => {
    const age = history.begun_s.length === 0 ? 0 : history.ended_s - history.begun_s[0];
    const width = [600, 1200, 1800, 3600].find((seconds) => age <= seconds) || 3600;
    const x = (at) => LEFT + (WIDTH - LEFT) * (1 - (history.ended_s - at) / width);
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / highest);
    const marks = [0, 0.5, 1].map((part) => draw("g", {},
      draw("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: y(part * highest), y2: y(part * highest) }),
      draw("text", { class: "tick", x: LEFT - 6, y: y(part * highest) + 4, "text-anchor": "end" }, rate(part * highest))));
    const times = [0, 0.25, 0.5, 0.75, 1].map((part) => draw("text",
      { class: "tick", x: LEFT + (WIDTH - LEFT) * part, y: HEIGHT - 3, "text-anchor": part === 1 ? "end" : part === 0 ? "start" : "middle" },
      part === 1 ? "now" : "−" + span(width * (1 - part))));
    return { x, y, frame: [...marks, ...times] };
  };
  const nice = (value) => {
    if (value <= 0) return 1;
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 4, 5, 10].map((step) => step * power).find((step) => step >= value) || 10 * power;
  };
  const steps = (history) => history.begun_s.map((begun, at) => ({ begun, ended: at + 1 < history.begun_s.length ? history.begun_s[at + 1] : history.ended_s }));
  const perSecond = (numbers, times) => numbers.map((number, at) => number / Math.max(1, times[at].ended - times[at].begun));

  const traffic = (state) => {
    const { history } = state;
    const times = steps(history);
    const [toPods, toClients] = [perSecond(history.delivered, times), perSecond(history.replied, times)];
    const highest = nice(Math.max(0, ...toPods, ...toClients));
    const { x, y, frame } = scene(history, highest);
    const path = (numbers) => numbers.map((number, at) => (at === 0 ? "M" : "L") + x(times[at].begun).toFixed(1) + " " + y(number).toFixed(1)
      + "L" + x(times[at].ended).toFixed(1) + " " + y(number).toFixed(1)).join("");
    const line = path(toPods);
    const area = times.length === 0 ? "" : line + "L" + x(history.ended_s).toFixed(1) + " " + y(0) + "L" + x(times[0].begun).toFixed(1) + " " + y(0) + "Z";
    put($("traffic"), ...frame, draw("path", { class: "area-in", d: area }), draw("path", { class: "line-out", d: path(toClients) }), draw("path", { class: "line-in", d: line }));
    const now = (numbers) => (numbers.length === 0 ? "…" : rate(numbers[numbers.length - 1]));
    text($("traffic-text"), "Solid: to pods, now " + now(toPods) + " a second. Dashed: back to clients, now " + now(toClients) + ". One step is " + history.interval_s + " s.");
  };

  // The reasons that dropped most, each with its colour; what is beyond shares the last one.
  const ranked = (history) => Object.entries(history.drops).map(([reason, numbers]) => ({ reason, numbers, count: sum(numbers) }))
    .sort((one, other) => other.count - one.count || one.reason.localeCompare(other.reason));

  const drops = (state) => {
    const { history } = state;
    const all = ranked(history);
    const times = steps(history);
    const parts = all.map(({ numbers }) => perSecond(numbers, times));
    const highest = nice(Math.max(0, ...times.map((_, at) => sum(parts.map((numbers) => numbers[at])))));
    const { x, y, frame } = scene(history, highest);
    const columns = times.flatMap(({ begun, ended }, at) => {
      let under = 0;
      return parts.map((numbers, rank) => {
        const rect = numbers[at] === 0 ? null : draw("rect", {
          class: "s" + Math.min(rank, COLOURS - 1), x: x(begun).toFixed(1), width: Math.max(1, x(ended) - x(begun)).toFixed(1),
          y: y(under + numbers[at]).toFixed(1), height: (y(under) - y(under + numbers[at])).toFixed(1),
        });
        under += numbers[at];
        return rect;
      });
    });
    put($("drops"), ...frame, ...columns);
    const age = times.length === 0 ? 0 : history.ended_s - times[0].begun;
    const told = all.slice(0, 3).map(({ reason, count }) => whole(count) + " " + reason);
    text($("drops-text"), times.length === 0 ? "The first samples are still to come." : all.length === 0
      ? "Nothing was dropped or refused in the last " + span(age) + "."
      : "In the last " + span(age) + ": " + told.join(", ") + (all.length > 3 ? ", and others" : "") + ".");
    reasons(state, all, age);
  };

  const reasons = (state, all, age) => {
    const { history } = state;
    const rank = new Map(all.map(({ reason, count }, at) => [reason, { at, count }]));
    const told = state.reasons.filter((reason) => reason.is_drop);
    const of = (reason) => (rank.get(reason.reason) || { count: 0 }).count;
    told.sort((one, other) => of(other) - of(one) || other.count - one.count);
    $("reasons-section").hidden = told.length === 0;
    text($("kept-head"), age === 0 ? "Since the start" : "Last " + span(age));
    put($("reasons").tBodies[0], ...told.map((reason) => {
      const known = rank.get(reason.reason);
      const colour = known === undefined ? "track" : "s" + Math.min(known.at, COLOURS - 1);
      const minute = known === undefined ? 0 : lastOf(history.drops[reason.reason], 6);
      return make("tr", {},
        make("th", { scope: "row" }, draw("svg", { class: "swatch", viewBox: "0 0 11 11", "aria-hidden": "true" }, draw("rect", { class: colour, width: 11, height: 11 })), make("span", { class: "address" }, reason.reason)),
        make("td", { class: "number" }, whole(minute)), make("td", { class: "number" }, whole(of(reason))), make("td", { class: "number" }, whole(reason.count)),
        make("td", {}, reason.sentence, reason.advice === null ? null : make("div", { class: "note" }, "→ " + reason.advice)));
    }));
  };

  const maps = (state) => {
    const part = (map) => (map.capacity === 0 ? 0 : map.entries / map.capacity);
    const used = state.maps.filter((map) => map.entries > 0).sort((one, other) => part(other) - part(one) || one.map.localeCompare(other.map));
    put($("maps").tBodies[0], ...used.map((map) => {
      const kind = map.may_be_full || part(map) < 0.8 ? "good" : part(map) < 0.95 ? "warn" : "bad";
      const words = percent(part(map)) + (map.may_be_full && part(map) > 0.8 ? ", no harm" : "");
      return make("tr", {}, make("th", { scope: "row" }, make("span", { class: "address" }, map.map)), make("td", {}, gauge(part(map), kind, words)),
        make("td", { class: "number" }, whole(map.entries)), make("td", { class: "number" }, whole(map.capacity)));
    }));
    const empty = state.maps.filter((map) => map.entries === 0).map((map) => map.map);
    text($("maps-empty-title"), plural(empty.length, "empty table", "empty tables"));
    text($("maps-empty"), empty.join("  "));
  };

  const events = (state) => {
    $("events").hidden = state.events.length === 0;
    $("events-none").hidden = state.events.length !== 0;
    put($("events").tBodies[0], ...state.events.slice(0, 15).map((event) => make("tr", {},
      make("td", {}, clock(event.at_s), make("div", { class: "note" }, span(Math.max(0, state.agent.now_s - event.at_s)) + " ago")),
      make("td", {}, event.what === "came" ? badge("warn", "came up") : badge("good", "settled")),
      make("td", {}, make("b", {}, event.object), make("div", { class: "note" }, event.why)))));
  };

  const show = (state) => {
    // Whoever marks text is about to copy it: tables stay as they are until then.
    const isMarked = !getSelection().isCollapsed;
    for (const part of isMarked ? [head, tiles] : [head, warnings, tiles, services, traffic, drops, maps, events]) part(state);
    const counted = state.services.rows.filter((service) => service.traffic);
    before = { now_s: state.agent.now_s, services: new Map(counted.map((service) => [service.name, service.traffic])) };
    drawn += 1;
    document.body.dataset.drawn = drawn;
  };

  const complain = (error) => {
    const silent = Date.now() - answeredAt;
    if (answeredAt !== 0 && silent < STALE_MS) return;
    $("verdict").className = "verdict bad";
    text($("verdict"), answeredAt === 0 ? "The agent does not answer: " + error.message
      : "No answer from the agent for " + span(silent / 1000) + ": what is below is of then");
    document.title = "! xlb does not answer";
  };

  const ask = async () => {
    if (asking) asking.abort();
    const own = asking = new AbortController();
    const query = new URLSearchParams({ limit });
    const wanted = $("find").value.trim();
    if (wanted !== "") query.set("find", wanted);
    try {
      const answer = await fetch("api/v1/state?" + query, { signal: own.signal, cache: "no-store" });
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const state = await answer.json();
      answeredAt = Date.now();
      if (own === asking) show(state);
    } catch (error) {
      if (error.name !== "AbortError") complain(error);
    }
  };

  let timer = 0;
  const poll = async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    await ask();
    clearTimeout(timer);
    timer = setTimeout(poll, POLL_MS);
  };
  let typing = 0;
  $("find").addEventListener("input", () => { clearTimeout(typing); limit = PAGE_ROWS; typing = setTimeout(poll, 200); });
  $("more").addEventListener("click", () => { limit = Math.min(ROWS_MAX, limit * 2); poll(); });
  document.addEventListener("visibilitychange", poll);
  poll();
})();
