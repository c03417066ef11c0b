"use strict";
(() => {
  const PRINTED_PX = { alone: 660, slice: 320 }; // on paper, in one or two columns
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = [...document.querySelectorAll(".figure")];
  const drawn = new Set();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(hover: none)").matches;
  const templates = read("templates");
  const template = () => (dark.matches ? templates.dark : templates.light);

  function draw(figure) {
    if (drawn.has(figure)) return;
    drawn.add(figure);
    const { data, layout } = read(figure.dataset.figure);
    layout.template = template();
    if (touch) layout.dragmode = false; // a finger scrolls the page
    Plotly.newPlot(figure, data, layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: touch ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    });
  }

  const drawAll = () => figures.forEach(draw);
  if (location.search === "?all" || !("IntersectionObserver" in window)) {
    drawAll();
  } else {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          seen.unobserve(entry.target);
          draw(entry.target);
        }
      }
    }, { rootMargin: "400px 0px" });
    figures.forEach((figure) => seen.observe(figure));
  }

  dark.addEventListener("change", () => drawn.forEach((figure) => Plotly.relayout(figure, { template: template() })));
  addEventListener("beforeprint", () => {
    drawAll();
    drawn.forEach((figure) => {
      const width = figure.closest(".slices") ? PRINTED_PX.slice : PRINTED_PX.alone;
      Plotly.relayout(figure, { template: templates.light, width });
    });
  });
  addEventListener("afterprint", () => {
    drawn.forEach((figure) => Plotly.relayout(figure, { template: template(), width: null, autosize: true }));
  });

  for (const button of document.querySelectorAll("button[data-copies]")) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copies);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source); // the reader copies it
      }
    });
  }
})();
