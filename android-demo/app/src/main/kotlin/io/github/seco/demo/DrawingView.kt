package io.github.seco.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.Path
import android.view.MotionEvent
import android.view.View

/** A square to draw in. It keeps nothing: what it shows is given to it, what the finger does is told. */
class DrawingView(context: Context) : View(context) {
    /** The finger went down, moved, went up. */
    var onBegin: (Point) -> Unit = {}
    var onMove: (Point) -> Unit = {}
    var onEnd: () -> Unit = {}

    /** What is shown. */
    var drawing: Drawing = Drawing()
        set(value) {
            field = value
            invalidate()
        }

    private val path = Path()
    private val pen = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        strokeCap = Paint.Cap.ROUND
        strokeJoin = Paint.Join.ROUND
        color = context.getColor(R.color.ink)
    }

    init {
        setBackgroundColor(context.getColor(R.color.paper))
        contentDescription = context.getString(R.string.drawing_area)
        isFocusable = true
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val side = MeasureSpec.getSize(widthMeasureSpec)
        setMeasuredDimension(side, side)
    }

    override fun onTouchEvent(event: MotionEvent): Boolean {
        when (event.actionMasked) {
            MotionEvent.ACTION_DOWN -> {
                // The page must not scroll away under the finger.
                parent?.requestDisallowInterceptTouchEvent(true)
                onBegin(Point(event.x, event.y))
            }
            MotionEvent.ACTION_MOVE -> {
                for (i in 0 until event.historySize) {
                    onMove(Point(event.getHistoricalX(i), event.getHistoricalY(i)))
                }
                onMove(Point(event.x, event.y))
            }
            MotionEvent.ACTION_UP, MotionEvent.ACTION_CANCEL -> {
                performClick()
                onEnd()
            }
        }
        return true
    }

    // Told to accessibility services; drawing itself has no other action.
    override fun performClick(): Boolean = super.performClick()

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        pen.strokeWidth = width / 12f
        for (stroke in drawing.strokes) {
            path.rewind()
            stroke.forEachIndexed { i, point ->
                if (i == 0) path.moveTo(point.x, point.y) else path.lineTo(point.x, point.y)
            }
            // A tap is a dot.
            if (stroke.size == 1) path.lineTo(stroke[0].x + 0.1f, stroke[0].y)
            canvas.drawPath(path, pen)
        }
    }
}
