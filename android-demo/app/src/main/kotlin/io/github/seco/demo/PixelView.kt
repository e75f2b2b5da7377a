package io.github.seco.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.Rect
import android.view.View

/** Bytes as a square of grey pixels. */
class PixelView(context: Context) : View(context) {
    private var bitmap: Bitmap? = null
    private val place = Rect()

    // Not filtered: every byte is to be seen.
    private val paint = Paint().apply { isFilterBitmap = false }

    init {
        contentDescription = context.getString(R.string.sent_picture)
    }

    /** Shows [bytes], one per pixel, row by row; nothing if null. */
    fun show(bytes: ByteArray?) {
        bitmap = bytes?.takeIf { it.size == Drawing.SIDE * Drawing.SIDE }?.let { pixels ->
            val colors = IntArray(pixels.size) { i ->
                val grey = pixels[i].toInt() and 0xff
                Color.rgb(grey, grey, grey)
            }
            Bitmap.createBitmap(colors, Drawing.SIDE, Drawing.SIDE, Bitmap.Config.ARGB_8888)
        }
        invalidate()
    }

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val side = MeasureSpec.getSize(widthMeasureSpec)
        setMeasuredDimension(side, side)
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        place.set(0, 0, width, height)
        bitmap?.let { canvas.drawBitmap(it, null, place, paint) }
    }
}
