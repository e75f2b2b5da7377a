//! How deep the stack gets: what lies below it is painted before a step and looked through after it.
#![allow(unsafe_code, reason = "the memory below the stack is the hardware's and belongs to no Rust object")]

use core::ptr;
use cortex_m::register::msp;

const PAINT: u32 = 0x5ec0_5ec0;

/// Below the stack pointer when painting, in bytes: room for the frames of the painting functions.
const MARGIN: usize = 256;

unsafe extern "C" {
    /// End of static data, from the linker script: the stack must not grow below.
    static _stack_end: u32;
    /// Where the stack starts, at the end of RAM, and grows down from.
    static _stack_start: u32;
}

/// Paints all memory below the stack.
#[inline(never)]
pub fn paint() {
    let (bottom, top) = (&raw const _stack_end as usize, msp::read() as usize - MARGIN);
    for address in (bottom..top).step_by(4) {
        // SAFETY: `_stack_end` is aligned to 4 and everything from there to the stack pointer is RAM that
        // holds nothing: there is no heap and static data ends below. The margin keeps clear of this
        // function's own frame, and no interrupt is enabled.
        unsafe {
            ptr::write_volatile(address as *mut u32, PAINT);
        }
    }
}

/// Bytes of stack used at most since [`paint`], from the stack's start: what the callers hold included.
#[must_use]
#[inline(never)]
pub fn high_water() -> usize {
    let (bottom, top) = (&raw const _stack_end as usize, &raw const _stack_start as usize);
    let painted = (bottom..top).step_by(4).take_while(|address| {
        // SAFETY: aligned RAM as in `paint`, which has written it up to the stack; reading stops at the
        // first word that a step has overwritten, at the latest at the stack's start.
        let word = unsafe { ptr::read_volatile(*address as *const u32) };
        word == PAINT
    });
    top - bottom - 4 * painted.count()
}
