//! What a table's declared fields are called in the index over what its database does not have yet.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::{Column, ColumnName, ColumnType, Equality, Key, Row, TableSchema, Value, ValueKind};

/// How many fields of a table may be declared.
pub const MAX_INDEXED_FIELDS: usize = 8;

/// Names one way to index a table: its declared fields, and how their values compare. What was indexed in another way
/// is of no use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexId(pub u64);

impl fmt::Debug for IndexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexId({:016x})", self.0)
    }
}

/// "This field has this value", as 16 bytes. Two that differ may share them, so who finds a record by it looks at the
/// record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub [u8; 16]);

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Term({:032x})", u128::from_be_bytes(self.0))
    }
}

/// What the index has of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexTerms {
    /// The way in which it was indexed.
    pub index: IndexId,
    /// One per field that has a value.
    pub terms: Vec<Term>,
}

/// Why a field can't be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnindexableField {
    /// The table has no such column.
    #[error("the table has no column {0}")]
    Unknown(ColumnName),
    /// It was declared twice.
    #[error("column {0} is declared twice")]
    Twice(ColumnName),
    /// Too many.
    #[error("more than {MAX_INDEXED_FIELDS} fields are declared, and each makes every write dearer")]
    TooMany,
    /// Which of its values are equal is not known here.
    #[error("which values of column {0} are equal only the database knows: {1}")]
    Equality(ColumnName, &'static str),
}

/// The declared fields of a table under one schema.
#[derive(Debug, Clone, PartialEq)]
pub struct TableIndex {
    id: IndexId,
    fields: Vec<Column>,
}

impl TableIndex {
    /// Checks the declared fields against the schema; `None` if there are none.
    ///
    /// # Errors
    /// [`UnindexableField`] names the first that can't be declared.
    pub fn new(schema: &TableSchema, declared: &[ColumnName]) -> Result<Option<Self>, UnindexableField> {
        if declared.len() > MAX_INDEXED_FIELDS {
            return Err(UnindexableField::TooMany);
        }
        let mut fields: Vec<Column> = Vec::with_capacity(declared.len());
        for name in declared {
            let column = schema.columns.iter().find(|column| column.name == *name);
            let column = column.ok_or_else(|| UnindexableField::Unknown(name.clone()))?;
            if fields.iter().any(|earlier| earlier.name == *name) {
                return Err(UnindexableField::Twice(name.clone()));
            }
            comparable(&column.ty).map_err(|why| UnindexableField::Equality(name.clone(), why))?;
            fields.push(column.clone());
        }
        fields.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut hash = Xxh3::new();
        for field in &fields {
            // Its default too: it is the term of a record that was stored before the column was there.
            hash.update(format!("{}\0{:?}\0{:?}\0", field.name, field.ty, field.default).as_bytes());
        }
        let id = IndexId(hash.digest());
        Ok((!fields.is_empty()).then_some(Self { id, fields }))
    }

    /// The same without those that can't be declared: a column may have been dropped or altered since.
    pub fn of_those_that_can(schema: &TableSchema, declared: &[ColumnName]) -> Option<Self> {
        let can = |name: &&ColumnName| Self::new(schema, std::slice::from_ref(*name)).is_ok();
        let declared: Vec<ColumnName> = declared.iter().filter(can).cloned().collect();
        Self::new(schema, &declared).ok().flatten()
    }

    /// The way in which the table is indexed.
    pub fn id(&self) -> IndexId {
        self.id
    }

    /// Whether this field is declared.
    pub fn has(&self, field: &ColumnName) -> bool {
        self.fields.iter().any(|column| column.name == *field)
    }

    /// What the index has of a row; a field that is NULL is in no index.
    pub fn terms(&self, row: &Row) -> IndexTerms {
        let terms =
            self.fields.iter().filter_map(|field| row.get(field.name.as_str()).and_then(|value| term(field, value)));
        IndexTerms { index: self.id, terms: terms.collect() }
    }

    /// What the index has of a record that has no row.
    pub fn nothing(&self) -> IndexTerms {
        IndexTerms { index: self.id, terms: Vec::new() }
    }

    /// The term of a field's value; `None` for NULL, which equals nothing, and for a field that is not declared.
    pub fn term(&self, field: &ColumnName, value: &Value) -> Option<Term> {
        self.fields.iter().find(|column| column.name == *field).and_then(|column| term(column, value))
    }

    /// Whether the row's field has a value that a find takes for this one.
    pub fn matches(&self, row: &Row, field: &ColumnName, value: &Value) -> bool {
        let Some(column) = self.fields.iter().find(|column| column.name == *field) else { return false };
        let form = |value: &Value| column.ty.find_form(value);
        let held = row.get(field.as_str()).and_then(form);
        held.is_some() && held == form(value)
    }
}

fn term(field: &Column, value: &Value) -> Option<Term> {
    let form = field.ty.find_form(value)?;
    // A key's bytes are length-prefixed and tagged with their kind.
    let bytes = Key(vec![Value::Text(field.name.as_str().to_owned()), form]).to_bytes();
    Some(Term(xxh3_128(bytes.as_bytes()).to_be_bytes()))
}

/// Whether it is known here of each value which are taken for it.
fn comparable(ty: &ColumnType) -> Result<(), &'static str> {
    match (ty, ty.kind()) {
        (_, ValueKind::Double) => Err("it holds floating-point numbers; use a decimal or an integer"),
        (_, ValueKind::Json) => {
            Err("it holds JSON; declare a column that holds what you look for, as a type of its own")
        }
        (ColumnType::Collated { collation, .. }, _) if collation.equality == Equality::Unknown => {
            Err("it is compared by a collation that is not known here; give it another one, such as utf8mb4_bin")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::{Collation, ColumnDefault, DatabaseName, Repertoire, TableName, TableRef, VersionGuard};

    use super::*;

    fn name(name: &str) -> ColumnName {
        ColumnName::new(name).unwrap()
    }

    fn schema(types: &[(&str, ColumnType)]) -> TableSchema {
        let column = |(column, ty): &(&str, ColumnType)| Column {
            name: name(column),
            ty: ty.clone(),
            nullable: true,
            default: ColumnDefault::None,
            on_update_now: false,
        };
        TableSchema {
            table: TableRef {
                database: DatabaseName::new("main").unwrap(),
                table: TableName::new("payments").unwrap(),
            },
            columns: types.iter().map(column).collect(),
            key_columns: vec![0],
            group: vec![0],
            has_secondary_unique: false,
            guard: VersionGuard::Ledger,
        }
    }

    fn text() -> ColumnType {
        ColumnType::Text { max_chars: None, max_bytes: None }
    }

    fn payments() -> TableSchema {
        let int = ColumnType::Int { bits: 64 };
        schema(&[("id", int.clone()), ("status", text()), ("note", text()), ("amount", ColumnType::Numeric)])
    }

    #[test]
    fn a_term_is_of_a_field_and_what_its_value_equals() {
        let index = TableIndex::new(&payments(), &[name("status"), name("note"), name("amount")]).unwrap().unwrap();
        let of = |field: &str, value: Value| index.term(&name(field), &value);
        let open = || Value::Text("open".to_owned());
        assert!(of("status", open()).is_some());
        assert_ne!(of("status", open()), of("note", open()));
        assert_ne!(of("status", open()), of("status", Value::Text("Open".to_owned())));
        assert_eq!(of("status", Value::Null), None);
        assert_eq!(of("id", Value::Int64(1)), None, "it is not declared");
        let amount = |digits: &str| of("amount", Value::Decimal(digits.to_owned()));
        assert_eq!(amount("1.50"), amount("1.5"));
        assert_eq!(amount("100"), amount("100.00"));
        assert_eq!(amount("0"), amount("0.000"));
        assert_ne!(amount("100"), amount("1"));
    }

    #[test]
    fn a_row_has_a_term_for_each_field_that_has_a_value() {
        let index = TableIndex::new(&payments(), &[name("note"), name("status")]).unwrap().unwrap();
        let row: Row =
            [(name("status"), Value::Text("open".to_owned())), (name("note"), Value::Null)].into_iter().collect();
        let term = index.term(&name("status"), &Value::Text("open".to_owned())).unwrap();
        assert_eq!(index.terms(&row), IndexTerms { index: index.id(), terms: vec![term] });
        assert!(index.matches(&row, &name("status"), &Value::Text("open".to_owned())));
        assert!(!index.matches(&row, &name("status"), &Value::Text("closed".to_owned())));
        assert!(!index.matches(&row, &name("note"), &Value::Null));
    }

    #[test]
    fn another_field_or_another_type_is_another_index() {
        let id = |schema: &TableSchema, fields: &[&str]| {
            let fields: Vec<ColumnName> = fields.iter().map(|field| name(field)).collect();
            TableIndex::new(schema, &fields).unwrap().map(|index| index.id())
        };
        let before = payments();
        assert_eq!(id(&before, &[]), None);
        assert_eq!(id(&before, &["status", "note"]), id(&before, &["note", "status"]));
        assert_ne!(id(&before, &["status"]), id(&before, &["note"]));
        let mut after = payments();
        after.columns[1].ty = ColumnType::Text { max_chars: Some(20), max_bytes: None };
        assert_ne!(id(&before, &["status"]), id(&after, &["status"]));
        assert_eq!(id(&before, &["note"]), id(&after, &["note"]));
        let mut after = payments();
        after.columns[1].default = ColumnDefault::Constant(Value::Text("open".to_owned()));
        assert_ne!(id(&before, &["status"]), id(&after, &["status"]));
    }

    fn collated(equality: Equality) -> ColumnType {
        ColumnType::Collated {
            repertoire: Repertoire::Unicode,
            collation: Collation { equality, pads: true },
            max_chars: None,
            max_bytes: None,
            is_trimmed: false,
        }
    }

    #[test]
    fn texts_of_a_loose_collation_are_taken_for_themselves_only() {
        let schema = schema(&[("loose", collated(Equality::IgnoringCase)), ("exact", collated(Equality::Exact))]);
        let index = TableIndex::new(&schema, &[name("loose"), name("exact")]).unwrap().unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        let are_one = |field: &str, held: &str, sought: &str| {
            let row: Row = [(name(field), text(held))].into_iter().collect();
            let matches = index.matches(&row, &name(field), &text(sought));
            let of = |value: &str| index.term(&name(field), &text(value)).unwrap();
            assert_eq!(of(held) == of(sought), matches, "{held:?} {sought:?}");
            matches
        };
        for other in ["OPEN", "open ", "opén", "é"] {
            assert!(are_one("loose", other, other));
            assert!(!are_one("loose", "open", other), "{other:?}");
        }
        assert!(are_one("exact", "open", "open  ") && !are_one("exact", "open", "OPEN"));
    }

    #[test]
    fn what_cant_be_declared_is_named() {
        let loose = collated(Equality::Unknown);
        let schema = schema(&[("id", text()), ("x", ColumnType::Double), ("doc", ColumnType::Json), ("loose", loose)]);
        let refused = |fields: &[&str]| {
            let fields: Vec<ColumnName> = fields.iter().map(|field| name(field)).collect();
            TableIndex::new(&schema, &fields).unwrap_err()
        };
        assert_eq!(refused(&["nope"]), UnindexableField::Unknown(name("nope")));
        assert_eq!(refused(&["id", "id"]), UnindexableField::Twice(name("id")));
        assert!(matches!(refused(&["x"]), UnindexableField::Equality(..)));
        assert!(matches!(refused(&["doc"]), UnindexableField::Equality(..)));
        assert!(matches!(refused(&["loose"]), UnindexableField::Equality(..)));
        assert_eq!(refused(&["id"; 9]), UnindexableField::TooMany);
    }
}
