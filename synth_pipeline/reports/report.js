// Draws the embedded figures, fits them to paper and switches the colours, which are the style sheet's business.
(() => {
  const plots = [];
  for (const source of document.querySelectorAll("script[data-figure]")) {
    const target = document.getElementById(source.dataset.figure);
    const figure = JSON.parse(source.textContent);
    // A narrow legend has many rows.
    if (target.clientWidth < 480 && figure.data.length > 3) figure.layout.height += 90;
    Plotly.newPlot(target, figure.data, figure.layout, { displayModeBar: false, responsive: true });
    plots.push(target);
  }
  document.documentElement.dataset.plots = String(plots.length);

  const root = document.documentElement, button = document.querySelector(".theme");
  const isDark = () => getComputedStyle(root).colorScheme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const tell = () => {
    button?.setAttribute("aria-pressed", String(isDark()));
  };
  button?.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  tell();

  const folded = document.querySelectorAll("details");
  const fit = (width) => () => {
    folded.forEach((each) => { each.open = Boolean(width); });
    plots.forEach((plot) => Plotly.relayout(plot, width ? { width } : { autosize: true, width: null }));
  };
  addEventListener("beforeprint", fit(640));
  addEventListener("afterprint", fit(null));
})();
