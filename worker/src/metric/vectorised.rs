//! Loops compiled twice: for the processor that the program is built for, and for one with wider vectors.
//!
//! A program built for plain x86-64 does two float64 operations at a time where most machines can do four. Neither
//! variant may change a result: multiplications and additions are never contracted, and loops that sum name their
//! lanes, so that both add the same numbers in the same order.

/// Defines a function that runs in the variant for AVX2 where the processor has it.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn any($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    any($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has what the function was compiled for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            any($($arg),*)
        }
    };
}

pub(crate) use vectorised;
