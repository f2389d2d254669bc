//! Small Parquet files, as the Python libraries lay them out.

use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

/// The cells of a column.
pub enum Cells<'a> {
    Texts(&'a [&'a str]),
    Lists(&'a [&'a [&'a str]]),
    /// So many nulls, and no type.
    Nulls(usize),
}

use Cells::{Lists, Nulls, Texts};

impl Cells<'_> {
    fn declaration(&self, name: &str) -> String {
        match self {
            Texts(_) => format!("optional binary {name} (UTF8);"),
            Lists(_) => format!(
                "optional group {name} (LIST) {{ repeated group list {{ optional binary element (UTF8); }} }}"
            ),
            Nulls(_) => format!("optional int32 {name} (UNKNOWN);"),
        }
    }
}

/// A file of those columns.
pub fn file(columns: &[(&str, Cells<'_>)]) -> Vec<u8> {
    let fields: Vec<String> = columns.iter().map(|(name, cells)| cells.declaration(name)).collect();
    let schema = parse_message_type(&format!("message schema {{ {} }}", fields.join(" "))).expect("a schema");
    let properties = Arc::new(WriterProperties::default());
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), properties).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    for (_, cells) in columns {
        let mut column = group.next_column().expect("no fault").expect("a column");
        let bytes = |text: &&str| ByteArray::from(*text);
        let written = match cells {
            Texts(texts) => {
                let values: Vec<ByteArray> = texts.iter().map(bytes).collect();
                let definitions = vec![1; texts.len()];
                column.typed::<ByteArrayType>().write_batch(&values, Some(&definitions), None)
            }
            Lists(lists) => {
                let values: Vec<ByteArray> = lists.iter().flat_map(|list| list.iter()).map(bytes).collect();
                // An empty list has one entry, without an item.
                let entries = lists.iter().flat_map(|list| {
                    (0..list.len().max(1))
                        .map(|place| (if list.is_empty() { 1 } else { 3 }, i16::from(place > 0)))
                });
                let (definitions, repetitions): (Vec<i16>, Vec<i16>) = entries.unzip();
                column.typed::<ByteArrayType>().write_batch(&values, Some(&definitions), Some(&repetitions))
            }
            Nulls(n_rows) => column.typed::<Int32Type>().write_batch(&[], Some(&vec![0; *n_rows]), None),
        };
        written.expect("memory takes all");
        column.close().expect("memory takes all");
    }
    group.close().expect("memory takes all");
    writer.into_inner().expect("memory takes all")
}
