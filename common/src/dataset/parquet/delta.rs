//! Delta encodings say themselves how many lengths they hold, and the crate makes room for as many: looked at before.

/// Whether `n_blocks` runs of DELTA_BINARY_PACKED at the start of `data` claim at most `n_values` values each.
pub(super) fn claims_fit(mut data: &[u8], n_blocks: usize, n_values: u64) -> bool {
    for _ in 0..n_blocks {
        match pass_over(data, n_values) {
            Some(rest) => data = rest,
            None => return false,
        }
    }
    true
}

/// What follows a run; nothing where it claims too much or ends early.
fn pass_over(mut data: &[u8], n_values: u64) -> Option<&[u8]> {
    let block = varint(&mut data)?;
    let n_minis = varint(&mut data)?;
    let n_claimed = varint(&mut data)?;
    let _first = varint(&mut data)?;
    let is_sane = (1..=1 << 20).contains(&block) && n_minis > 0 && block.is_multiple_of(n_minis);
    if !is_sane || n_claimed > n_values {
        return None;
    }
    let (mini, n_minis) = (block / n_minis, usize::try_from(n_minis).ok()?);
    let mut n_left = n_claimed.saturating_sub(1);
    while n_left > 0 {
        let _least = varint(&mut data)?;
        let (widths, rest) = data.split_at_checked(n_minis)?;
        data = rest;
        for width in widths {
            if n_left > 0 {
                let n_bytes = usize::try_from(mini * u64::from(*width) / 8).ok()?;
                data = data.get(n_bytes..)?;
                n_left -= n_left.min(mini);
            }
        }
    }
    Some(data)
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = data.split_first()?;
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        // Blocks of 128 in 4 parts; 3 values: 7, then one block whose first part has 2 bits a value.
        let run = [[0x80, 0x01, 4, 3, 14].as_slice(), &[0, 2, 0, 0, 0], &[0xff; 8]].concat();
        let two = [run.as_slice(), &run].concat();
        assert!(claims_fit(&run, 1, 3) && !claims_fit(&run, 1, 2));
        assert!(claims_fit(&two, 2, 3) && !claims_fit(&run, 2, 3));
        assert!(!claims_fit(&run[..12], 1, 3));
        assert!(!claims_fit(&[0x80, 0x01, 4, 0xff, 0xff, 0xff, 0xff, 0x0f, 0], 1, 3));
        assert!(!claims_fit(&[], 1, 3) && !claims_fit(&[0, 0, 0, 0], 1, 3));
    }
}
