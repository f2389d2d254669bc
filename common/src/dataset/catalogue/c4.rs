//! C4, the default dataset: its repository and its configs.

/// The repository.
pub const REPO: &str = "allenai/c4";

/// The configs of English documents, the first of which is meant by `c4` alone. Their files lie in a folder each.
pub const ENGLISH: [&str; 4] = ["en", "en.noblocklist", "en.noclean", "realnewslike"];

/// The other languages of mC4. Their files lie in the folder `multilingual`.
pub const LANGUAGES: [&str; 107] = [
    "af", "am", "ar", "az", "be", "bg", "bg-Latn", "bn", "ca", "ceb", "co", "cs", "cy", "da", "de", "el",
    "el-Latn", "eo", "es", "et", "eu", "fa", "fi", "fil", "fr", "fy", "ga", "gd", "gl", "gu", "ha", "haw",
    "hi", "hi-Latn", "hmn", "ht", "hu", "hy", "id", "ig", "is", "it", "iw", "ja", "ja-Latn", "jv", "ka",
    "kk", "km", "kn", "ko", "ku", "ky", "la", "lb", "lo", "lt", "lv", "mg", "mi", "mk", "ml", "mn", "mr",
    "ms", "mt", "my", "ne", "nl", "no", "ny", "pa", "pl", "ps", "pt", "ro", "ru", "ru-Latn", "sd", "si",
    "sk", "sl", "sm", "sn", "so", "sq", "sr", "st", "su", "sv", "sw", "ta", "te", "tg", "th", "tr", "uk",
    "und", "ur", "uz", "vi", "xh", "yi", "yo", "zh", "zh-Latn", "zu",
];

/// All configs.
pub fn configs() -> impl Iterator<Item = &'static str> {
    ENGLISH.into_iter().chain(LANGUAGES)
}
