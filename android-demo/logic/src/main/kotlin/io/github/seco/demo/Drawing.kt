package io.github.seco.demo

import kotlin.math.hypot
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToInt

/** A place on the drawing area, in any unit; y grows downwards. */
data class Point(val x: Float, val y: Float)

/** What was drawn: strokes of points in the order they came. Not changed once made. */
data class Drawing(val strokes: List<List<Point>> = emptyList()) {
    val isEmpty: Boolean get() = strokes.all { it.isEmpty() }

    /** With a new stroke that starts at [point]. */
    fun begin(point: Point): Drawing = Drawing(strokes + listOf(listOf(point)))

    /** With the last stroke going on to [point]. */
    fun extend(point: Point): Drawing {
        val last = strokes.lastOrNull() ?: return begin(point)
        return Drawing(strokes.dropLast(1) + listOf(last + point))
    }

    /**
     * The drawing as the network was trained to see digits: [SIDE] x [SIDE] bytes, row by row, 0 the
     * background and 255 ink; the digit in a box of 20 pixels, its centre of mass in the middle (as LeCun
     * describes MNIST). Empty where nothing was drawn.
     */
    fun pixels(): ByteArray {
        if (isEmpty) return ByteArray(SIDE * SIDE)
        val segments = segments()
        val centred = ink(segments, 0f, 0f)
        var (mass, x, y) = Triple(0f, 0f, 0f)
        for (row in 0 until SIDE) {
            for (column in 0 until SIDE) {
                val value = centred[row * SIDE + column]
                mass += value
                x += value * (column + 0.5f)
                y += value * (row + 0.5f)
            }
        }
        val ink = ink(segments, SIDE / 2f - x / mass, SIDE / 2f - y / mass)
        return ByteArray(ink.size) { (ink[it] * 255).roundToInt().toByte() }
    }

    /** Strokes as line segments in pixels, their bounding box in the middle. */
    private fun segments(): List<Pair<Point, Point>> {
        val points = strokes.flatten()
        val (left, right) = points.minOf { it.x } to points.maxOf { it.x }
        val (top, bottom) = points.minOf { it.y } to points.maxOf { it.y }
        val extent = max(right - left, bottom - top)
        val scale = if (extent > 0) (BOX - 2 * PEN) / extent else 0f
        fun place(point: Point) = Point(
            SIDE / 2f + (point.x - (left + right) / 2) * scale,
            SIDE / 2f + (point.y - (top + bottom) / 2) * scale,
        )
        return strokes.filter { it.isNotEmpty() }.flatMap { stroke ->
            // A tap is a stroke of one point.
            val placed = stroke.map(::place)
            if (placed.size == 1) listOf(placed[0] to placed[0]) else placed.zipWithNext()
        }
    }

    /** How much of each pixel is inked, 0 to 1: the pen is round and its edge one pixel soft. */
    private fun ink(segments: List<Pair<Point, Point>>, dx: Float, dy: Float): FloatArray {
        val ink = FloatArray(SIDE * SIDE)
        for ((from, to) in segments) {
            for (row in 0 until SIDE) {
                for (column in 0 until SIDE) {
                    val pixel = Point(column + 0.5f - dx, row + 0.5f - dy)
                    val covered = (PEN + 0.5f - distance(pixel, from, to)).coerceIn(0f, 1f)
                    ink[row * SIDE + column] = max(ink[row * SIDE + column], covered)
                }
            }
        }
        return ink
    }

    companion object {
        /** Pixels of a side of the network's input. */
        const val SIDE = 28

        /** Pixels of a side of the box that holds the digit. */
        private const val BOX = 20f

        /** Half the pen's width in pixels. */
        private const val PEN = 1.1f

        private fun distance(point: Point, from: Point, to: Point): Float {
            val (x, y) = to.x - from.x to to.y - from.y
            val length = x * x + y * y
            val along = if (length == 0f) 0f else ((point.x - from.x) * x + (point.y - from.y) * y) / length
            val at = min(1f, max(0f, along))
            return hypot(point.x - from.x - at * x, point.y - from.y - at * y)
        }
    }
}
