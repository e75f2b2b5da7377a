package io.github.seco.demo

import android.content.Context
import android.util.TypedValue
import android.view.Gravity
import android.view.View
import android.view.ViewGroup.LayoutParams.MATCH_PARENT
import android.view.ViewGroup.LayoutParams.WRAP_CONTENT
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TableLayout
import android.widget.TableRow
import android.widget.TextView

/** The one page: drawing area, answer, what left the phone, what it cost. */
class Page(context: Context) : ScrollView(context) {
    val drawing = DrawingView(context)
    val clear = button(R.string.clear)
    val retry = button(R.string.retry)

    private val answer = text(32f).apply {
        // Read aloud when it changes.
        accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
        minLines = 2
    }
    private val sentTitle = text(20f, R.string.sent_title)
    private val sent = PixelView(context)
    private val costTitle = text(20f, R.string.cost_title)
    private val costs = TableLayout(context).apply { isStretchAllColumns = true }

    init {
        isFillViewport = true
        val space = dp(24)
        val column = LinearLayout(context).apply {
            orientation = LinearLayout.VERTICAL
            setPadding(space, space, space, space)
        }
        fun add(view: View, width: Int = MATCH_PARENT) =
            column.addView(view, LinearLayout.LayoutParams(width, WRAP_CONTENT).apply { bottomMargin = dp(16) })
        add(text(28f, R.string.title).apply { if (android.os.Build.VERSION.SDK_INT >= 28) isAccessibilityHeading = true })
        add(drawing)
        add(answer)
        val buttons = LinearLayout(context).apply {
            addView(clear)
            addView(retry)
        }
        add(buttons)
        add(sentTitle)
        add(sent, dp(168))
        add(costTitle)
        add(costs)
        addView(column)
        setOnApplyWindowInsetsListener { view, insets ->
            @Suppress("DEPRECATION") // The replacement is not there before API 30.
            view.setPadding(
                insets.systemWindowInsetLeft, insets.systemWindowInsetTop,
                insets.systemWindowInsetRight, insets.systemWindowInsetBottom,
            )
            insets
        }
    }

    fun show(screen: DigitScreen) {
        drawing.drawing = screen.drawing
        val words = words(screen.status)
        // Setting the same text again would have it read aloud again.
        if (answer.text.toString() != words) answer.text = words
        retry.visibility = if (screen.status is Status.Failed) View.VISIBLE else View.GONE
        sent.show(screen.sent)
        for (view in listOf(sentTitle, sent)) view.visibility = visible(screen.sent)
        show(screen.costs)
    }

    private fun show(shown: Costs?) {
        for (view in listOf(costTitle, costs)) view.visibility = visible(shown)
        costs.removeAllViews()
        if (shown == null) return
        row("", context.getString(R.string.cost_private), context.getString(R.string.cost_plain))
        fun row(name: Int, value: (RequestCost) -> String?) =
            row(context.getString(name), value(shown.private) ?: "–", value(shown.plain) ?: "–")
        row(R.string.cost_up) { "%,d".format(it.bytesUp) }
        row(R.string.cost_down) { "%,d".format(it.bytesDown) }
        row(R.string.cost_packets) { "%,d".format(it.packets) }
        row(R.string.cost_cpu) { cost -> cost.cpuMicros?.let { "%.1f".format(it / 1000.0) } }
        row(R.string.cost_wall) { "%.0f".format(it.wallMicros / 1000.0) }
    }

    private fun row(vararg cells: String) {
        val row = TableRow(context)
        cells.forEachIndexed { i, cell ->
            row.addView(text(18f).apply {
                text = cell
                gravity = if (i == 0) Gravity.START else Gravity.END
            })
        }
        costs.addView(row)
    }

    private fun words(status: Status): String = when (status) {
        Status.Connecting -> context.getString(R.string.connecting)
        Status.Ready -> context.getString(R.string.ready)
        is Status.Queued -> context.getString(R.string.queued, status.position)
        Status.Running -> context.getString(R.string.running)
        is Status.Answer -> context.getString(R.string.answer, status.digit)
        is Status.Failed -> context.getString(
            when (status.problem) {
                Problem.NO_DEPLOYMENT -> R.string.no_deployment
                Problem.NO_CONNECTION -> R.string.no_connection
                Problem.BUSY -> R.string.busy
                Problem.WRONG_SERVERS -> R.string.wrong_servers
                Problem.OTHER -> R.string.other
            },
        )
    }

    private fun visible(value: Any?) = if (value == null) View.GONE else View.VISIBLE

    private fun text(size: Float, words: Int? = null) = TextView(context).apply {
        textSize = size
        words?.let { setText(it) }
    }

    private fun button(words: Int) = Button(context).apply {
        setText(words)
        textSize = 20f
        minHeight = dp(56)
    }

    private fun dp(value: Int): Int = TypedValue.applyDimension(
        TypedValue.COMPLEX_UNIT_DIP, value.toFloat(), resources.displayMetrics,
    ).toInt()
}
