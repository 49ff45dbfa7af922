//! Values of `xlb-common` as values of maps.

use bytemuck::Pod;

/// Any plain value, as aya wants to have it marked.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Raw<T>(pub T);

// SAFETY: a transparent wrapper around a bytemuck::Pod has no padding and no invalid bit pattern either.
unsafe impl<T: Pod> aya::Pod for Raw<T> {}
