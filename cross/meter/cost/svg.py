"""Bar charts as SVG, without a library, for light and dark pages."""

from html import escape

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 16px }
  .quiet { fill: #59636e }
  .number { font-variant-numeric: tabular-nums }
  .axis { stroke: #d1d9e0 }
  .plain { fill: #8c959f } .private { fill: #0969da } .other { fill: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 } .axis { stroke: #3d444d }
    .plain { fill: #6e7681 } .private { fill: #58a6ff } .other { fill: #f0883e }
  }
"""

WIDTH, LEFT, RIGHT, BAR, GAP, GROUP = 760, 190, 130, 16, 3, 14


def bars(title, note, groups, kinds, show, scale=lambda value, largest: value / largest):
    """A chart of horizontal bars.

    groups: [(heading or "", label, [(kind, value), ...]), ...]; a heading begins a new scale.
    kinds: {kind: legend}. show(value) is a bar's label; scale gives its length from 0 to 1.
    """
    panels = []
    for heading, label, values in groups:
        if heading or not panels:
            panels.append((heading, []))
        panels[-1][1].append((label, values))
    parts, y = [], 30
    parts.append(f'<text class="title" x="16" y="{y}">{escape(title)}</text>')
    x = 16
    y += 26
    for kind, legend in kinds.items():
        parts.append(f'<rect class="{kind}" x="{x}" y="{y - 11}" width="12" height="12" rx="2"/>'
                     f'<text x="{x + 18}" y="{y}">{escape(legend)}</text>')
        x += 40 + 7.2 * len(legend)
    y += 16
    for heading, rows in panels:
        largest = max(value for _, values in rows for _, value in values)
        y += 20
        if heading:
            parts.append(f'<text class="quiet" x="16" y="{y}">{escape(heading)}</text>')
            y += 12
        top = y
        for label, values in rows:
            height = len(values) * (BAR + GAP)
            parts.append(f'<text x="{LEFT - 12}" y="{y + height / 2 + 3}" text-anchor="end">{escape(label)}</text>')
            for kind, value in values:
                length = max(scale(value, largest) * (WIDTH - LEFT - RIGHT), 1)
                parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="3"/>'
                             f'<text class="number" x="{LEFT + length + 7:.1f}" y="{y + 12.5}">{escape(show(value))}</text>')
                y += BAR + GAP
            y += GROUP
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{top - 5}" x2="{LEFT}" y2="{y - GROUP + 3}"/>')
    y += 14
    for line in note:
        parts.append(f'<text class="quiet" x="16" y="{y}">{escape(line)}</text>')
        y += 18
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" role="img" '
            f'aria-label="{escape(title)}">\n<style>{STYLE}</style>\n{body}\n</svg>\n')
