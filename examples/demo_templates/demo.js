const $ = id => document.getElementById(id)

// A chart of the last minute: one line a series, drawn from the right, so that a minute is always as wide as the chart.
const draw = (place, series, unit, most) => {
  const points = values => values.map((value, i) => `${240 - values.length + i},${(60 - 58 * value / most).toFixed(1)}`).join(" ")
  place.innerHTML = `<svg class="chart" viewBox="0 0 240 60" preserveAspectRatio="none" role="img">
    <line x1="0" x2="240" y1="60" y2="60" vector-effect="non-scaling-stroke"/><line x1="0" x2="240" y1="2" y2="2" vector-effect="non-scaling-stroke" stroke-dasharray="3 4"/>
    ${series.map(each => `<polygon points="${240 - each.values.length},60 ${points(each.values)} 239,60" style="fill: ${each.color}"/><polyline points="${points(each.values)}" style="stroke: ${each.color}"/>`).join("")}</svg>
    <div class="legend">${series.map(each => `<span style="--color: ${each.color}">${each.name}: ${Math.round(each.values.at(-1) ?? 0).toLocaleString("en")}${unit}</span>`).join("")}
    <span style="--color: transparent; margin-left: auto" class="soft">top: ${Math.round(most).toLocaleString("en")}${unit}</span></div>`
}

// Draw all the charts of a page again and again. Each has data-lines="key name color, …".
const follow = () => {
  const refresh = async () => {
    const samples = await (await fetch("/last-minute")).json()
    const charts = [...document.querySelectorAll("[data-lines]")].map(place => {
      const series = place.dataset.lines.split(",").map(text => {
        const [key, name, color] = text.split("|").map(part => part.trim())
        return { name, color: `var(--${color})`, values: samples.map(sample => sample[key] ?? 0) }
      })
      return { place, series, most: Math.max(Number(place.dataset.least ?? 1), ...series.flatMap(each => each.values)) }
    })
    for (const { place, series, most } of charts) {
      // Charts that are compared have one scale.
      const group = charts.filter(other => place.dataset.group && other.place.dataset.group === place.dataset.group)
      draw(place, series, place.dataset.unit ?? "", Math.max(most, ...group.map(other => other.most)))
    }
    document.body.dataset.samples = samples.length
  }
  const again = () => refresh().catch(() => {}).finally(() => setTimeout(again, 500))
  again()
}

// Buttons that make the server do something: they cannot be pressed twice, and what they return is shown.
const press = (button, work) => button.addEventListener("click", async () => {
  button.disabled = true
  try { await work() } finally { button.disabled = false }
})
