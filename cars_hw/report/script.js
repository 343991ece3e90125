// The page is complete without this script. It shows one network at a time, selects points, and copies text.
(() => {
  "use strict";
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const make = (name, className, text = "") => {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    return element;
  };
  const networks = all(".network");
  const known = new Set(networks.map((network) => network.id));
  const points = all(".front .point");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  document.documentElement.classList.add("scripted");

  function select(name, { remember = true, announce = true } = {}) {
    for (const network of networks) network.hidden = network.id !== name;
    for (const link of all("[data-network]")) {
      if (link.dataset.network === name) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    for (const row of all("#front tbody tr")) {
      row.classList.toggle("selected", Boolean(row.querySelector(`a[href="#${CSS.escape(name)}"]`)));
    }
    // The selected point is drawn last, above its neighbours. Moving it in the document removes the focus; restore it.
    for (const point of points.filter((one) => one.dataset.network === name)) {
      const focused = document.activeElement === point;
      if (point.nextElementSibling) point.parentNode.append(point);
      if (focused) point.focus({ preventScroll: true });
    }
    if (announce) document.getElementById("told").textContent = `Selected: ${document.getElementById(name).dataset.line}`;
    if (remember) {
      try {
        history.replaceState(null, "", `#${name}`);
      } catch {
        location.hash = name;
      }
    }
  }

  function goTo(name) {
    const network = document.getElementById(name);
    network.focus({ preventScroll: true });
    network.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
  }

  // A link in a plot or in the list of names only selects the network; any other link also scrolls to it.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    const name = link && decodeURIComponent(link.getAttribute("href").slice(1));
    if (!link || !known.has(name)) return;
    event.preventDefault();
    select(name);
    if (!link.dataset.network) goTo(name);
  });
  addEventListener("hashchange", () => {
    const name = decodeURIComponent(location.hash.slice(1));
    if (known.has(name)) {
      select(name, { remember: false });
      goTo(name);
    }
  });

  // Points are small: a tap selects the nearest point within 36 pixels.
  function plot(figure) {
    const tip = make("div", "tip");
    tip.hidden = true;
    figure.append(tip);

    function nearest(event) {
      let best = null;
      let least = 36;
      for (const circle of all(".disc, .ring", figure)) {
        const box = circle.getBoundingClientRect();
        if (!box.width) continue;
        const away = Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
        if (away < least) [least, best] = [away, circle.closest(".point")];
      }
      return best;
    }

    function show(point) {
      for (const one of all(".point", figure)) one.classList.toggle("near", one === point);
      tip.hidden = !point;
      if (!point) return;
      const around = figure.getBoundingClientRect();
      const box = point.querySelector(".halo").getBoundingClientRect();
      tip.textContent = point.getAttribute("aria-label");
      tip.style.left = "0";
      const most = around.width - tip.offsetWidth;
      tip.style.left = `${Math.max(0, Math.min(most, box.x + box.width / 2 - around.x - tip.offsetWidth / 2))}px`;
      const above = box.y - around.y - tip.offsetHeight - 6;
      tip.style.top = `${above > 0 ? above : box.bottom - around.y + 6}px`;
    }

    for (const svg of all("svg[role='group']", figure)) {
      svg.addEventListener("pointermove", (event) => show(nearest(event)));
      svg.addEventListener("pointerleave", () => show(null));
      svg.addEventListener("click", (event) => {
        // A click by keyboard has no position; the link handles it.
        const point = event.detail > 0 && nearest(event);
        if (!point) return;
        event.preventDefault();
        event.stopPropagation();
        select(point.dataset.network);
      });
      const order = all(".point", svg).sort((one, other) => one.dataset.x - other.dataset.x);
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
        const at = order.indexOf(document.activeElement);
        if (at < 0 || (!step && event.key !== " ")) return;
        event.preventDefault();
        const to = order[Math.max(0, Math.min(order.length - 1, at + (step || 0)))];
        to.focus();
        select(to.dataset.network);
      });
      svg.addEventListener("focusin", (event) => show(event.target.closest(".point")));
      svg.addEventListener("focusout", () => show(null));
      // The tip shows the text of a point; remove the browser's own tooltip.
      for (const title of all(".point > title", svg)) title.remove();
    }
  }
  all("figure.front").forEach(plot);

  function slide(figure) {
    const numbers = [...new Set(all(".generation", figure).map((path) => Number(path.dataset.generation)))];
    if (numbers.length < 2) return;
    const row = make("label", "slider", "Generation");
    const input = make("input", "");
    Object.assign(input, { type: "range", min: 0, max: numbers.length, value: numbers.length });
    const output = make("output", "");
    row.append(input, output);
    figure.querySelector("figcaption").before(row);
    const drawn = all(".generation", figure).map((path) => [path, path.getAttribute("opacity")]);
    const update = () => {
      const at = Number(input.value);
      const whole = at === numbers.length;
      for (const [path, usual] of drawn) {
        const age = at - numbers.indexOf(Number(path.dataset.generation));
        path.setAttribute("opacity", whole ? usual : age === 0 ? 0.95 : age > 0 && age < 4 ? 0.3 - 0.08 * age : 0);
      }
      const told = whole ? "all" : `${numbers[at]} of ${numbers[numbers.length - 1]}; the previous three are paler`;
      output.textContent = told;
      input.setAttribute("aria-valuetext", told);
    };
    input.addEventListener("input", update);
    update();
  }
  all("figure.population").forEach(slide);

  for (const block of all("pre.copied")) {
    const button = make("button", "copy", "Copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      const range = document.createRange();
      range.selectNodeContents(block);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      try {
        await navigator.clipboard.writeText(block.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected: copy it now";
      }
      setTimeout(() => (button.textContent = "Copy"), 2500);
    });
    const around = make("div", "copying");
    block.replaceWith(around);
    around.append(block, button);
  }

  // Closed details are printed, too.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });

  if (networks.length) {
    const asked = decodeURIComponent(location.hash.slice(1));
    const best = document.querySelector("#answer .statement [data-best]");
    const first = known.has(asked) ? asked : best ? best.dataset.best : networks[networks.length - 1].id;
    select(first, { remember: false, announce: false });
    if (known.has(asked)) requestAnimationFrame(() => goTo(asked));
  }
})();
