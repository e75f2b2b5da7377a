//! What a program without an operating system needs beside its code. Used by both programs.
#![allow(unsafe_code, reason = "allocators and fault handlers have unsafe interfaces")]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;
use core::ptr;

/// An allocator that has nothing to give. `x-wing` turns on the `alloc` feature of `zeroize` (0.1.1: its
/// dependency has default features), so an allocator must be named; none is ever called. `build` checks
/// that the linked program contains no call of it.
struct Nothing;

// SAFETY: null is how an allocator says that it is out of memory; there is never anything to free.
unsafe impl GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static NOTHING: Nothing = Nothing;

/// Ends the emulation. Formatting the message would take several kilobytes. A product resets instead.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if let Some(place) = info.location() {
        semihosting::println!("FAIL: panic in {} line {}", place.file(), place.line());
    }
    semihosting::process::exit(101)
}

/// A fault, such as an access outside of memory.
// No safety contract: only the processor calls it.
#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    semihosting::println!("FAIL: hard fault at {:#x}", frame.pc());
    semihosting::process::exit(102)
}
