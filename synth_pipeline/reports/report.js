// Draws the embedded figures and fits them to paper. Colours of text and grid are the style sheet's business.
(() => {
  const plots = [];
  for (const source of document.querySelectorAll("script[data-figure]")) {
    const target = document.getElementById(source.dataset.figure);
    const figure = JSON.parse(source.textContent);
    Plotly.newPlot(target, figure.data, figure.layout, { displayModeBar: false, responsive: true });
    plots.push(target);
  }
  document.documentElement.dataset.plots = String(plots.length);
  const fit = (width) => () => plots.forEach((plot) => Plotly.relayout(plot, width ? { width } : { autosize: true, width: null }));
  addEventListener("beforeprint", fit(640));
  addEventListener("afterprint", fit(null));
})();
