"""The few shapes that a board is drawn with, as SVG text."""

from html import escape

# Grafana's colours on a light background; series without a colour of their own take them in this order.
NAMED = {"green": "#56a64b", "yellow": "#e0a800", "orange": "#ff780a", "red": "#e02f44", "blue": "#3274d9"}
SERIES = ["#3274d9", "#56a64b", "#ff780a", "#a352cc", "#e0a800", "#e02f44", "#1f9aa8", "#8f6b4e", "#e377a2", "#7a8290"]
INK, FAINT, GRID, CARD, PAGE = "#24292e", "#6e7680", "#e7e9ed", "#ffffff", "#f3f4f6"
# Of a heatmap, from few to many.
HEAT = ["#fff1e0", "#fee0c0", "#fdc994", "#fdae6b", "#fd8d3c", "#f16913", "#d94801", "#a63603", "#7f2704"]


def number(value):
    return f"{value:.1f}".removesuffix(".0")


class Svg:
    def __init__(self):
        self._parts = []

    def add(self, part):
        self._parts.append(part)

    def text(self, x, y, words, size=11, fill=INK, anchor="start", weight=None):
        bold = f' font-weight="{weight}"' if weight else ""
        self.add(f'<text x="{number(x)}" y="{number(y)}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{bold}>'
                 f"{escape(words)}</text>")

    def rect(self, x, y, width, height, fill, stroke=None, radius=0, opacity=1.0):
        more = f' stroke="{stroke}"' if stroke else ""
        more += f' rx="{radius}"' if radius else ""
        more += f' fill-opacity="{opacity}"' if opacity < 1 else ""
        self.add(f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
                 f'fill="{fill}"{more}/>')

    def rects(self, boxes, fill, opacity=1.0):
        """Many of one colour, as (x, y, width, height)."""
        path = "".join(f"M{number(x)} {number(y)}h{number(w)}v{number(h)}h{number(-w)}z" for x, y, w, h in boxes)
        if path:
            more = f' fill-opacity="{opacity}"' if opacity < 1 else ""
            self.add(f'<path d="{path}" fill="{fill}"{more}/>')

    def line(self, x1, y1, x2, y2, stroke, dash=None, width=1.0):
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self.add(f'<path d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}" stroke="{stroke}" '
                 f'stroke-width="{width}" fill="none"{more}/>')

    def curve(self, points, stroke, dash=None, width=1.4, floor=None, opacity=0.1):
        """A line through the points and, down to `floor` if there is one, a faint area."""
        if len(points) == 1:
            # A single point is seen as a short dash.
            points = [(points[0][0] - 1, points[0][1]), (points[0][0] + 1, points[0][1])]
        path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        if floor is not None and opacity:
            (left, _), (right, _) = points[0], points[-1]
            area = f"M{number(left)} {number(floor)}L{path}L{number(right)} {number(floor)}z"
            self.add(f'<path d="{area}" fill="{stroke}" fill-opacity="{opacity}"/>')
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self.add(f'<path d="M{path}" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round" '
                 f'fill="none"{more}/>')

    def group(self, words):
        """What follows up to `end` says these words when the pointer rests on it."""
        self.add(f"<g><title>{escape(words)}</title>")

    def end(self):
        self.add("</g>")

    def document(self, width, height, label):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{escape(label)}" font-family="Inter, system-ui, \'Segoe UI\', Helvetica, Arial, '
            f'sans-serif">\n<rect width="{width}" height="{height}" fill="{PAGE}"/>\n'
            + "\n".join(self._parts) + "\n</svg>\n"
        )
