package io.github.seco

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

/** Real numbers on their way to the library. */
class RealsTest {
    @Test
    fun `numbers become four bytes each, the least first`() {
        assertArrayEquals(byteArrayOf(0, 0, -128, 63, 0, 0, 0, -64), floatArrayOf(1f, -2f).littleEndian())
        assertEquals(0, floatArrayOf().littleEndian().size)
        val all = floatArrayOf(0.1f, -0f, Float.MAX_VALUE, Float.MIN_VALUE, Float.NaN, Float.NEGATIVE_INFINITY)
        val back = ByteBuffer.wrap(all.littleEndian()).order(ByteOrder.LITTLE_ENDIAN)
        all.forEach { assertEquals(it.toRawBits(), back.getInt()) }
    }
}
