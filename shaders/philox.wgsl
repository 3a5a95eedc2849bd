// Philox 4x32-10, the counter-based generator of all randomness: same bits as src/rng.rs.

const PHILOX_M0: u32 = 0xD2511F53u;
