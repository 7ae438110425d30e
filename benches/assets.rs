//! Makes a file of float32 weights: gaussian noise times 0.02, little-endian, the same for the same seed.
//!
//! `cargo bench --bench assets -- FILE BYTES SEED`

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};

/// The spread of a trained layer's weights; their exponents decide how little of them compresses.
const SCALE: f64 = 0.02;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench` for the harness that is not there.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [path, bytes, seed] = arguments.as_slice() else {
        return Err("usage: cargo bench --bench assets -- FILE BYTES SEED".into());
    };
    let mut state: u64 = seed.parse()?;
    let pairs = bytes.parse::<u64>()?.div_ceil(8);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for _ in 0..pairs {
        // Box and Muller: two even numbers make two normal ones.
        let radius = (-2.0 * even(&mut state).ln()).sqrt() * SCALE;
        let (sine, cosine) = (std::f64::consts::TAU * even(&mut state)).sin_cos();
        for value in [radius * sine, radius * cosine] {
            #[expect(clippy::cast_possible_truncation, reason = "weights are float32")]
            file.write_all(&(value as f32).to_le_bytes())?;
        }
    }
    file.into_inner()?.sync_all()?;
    Ok(())
}

/// The next number of `SplitMix64`, above 0 and at most 1.
fn even(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64
}
