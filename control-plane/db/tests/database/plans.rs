//! How pages of lists are found. SQLite's plans follow from the schema alone; PostgreSQL's also from what is in it, so
//! those are looked at by `infra/bench api`.

use bmi_db::Db;
use bmi_tests::TestDatabase;

use super::sql::plan;

#[test]
fn a_page_of_a_list_is_read_in_its_order_and_nothing_is_sorted() {
    let database = TestDatabase::sqlite();
    Db::open(&database.url).unwrap();
    for (table, filter) in [
        ("projects", ""),
        ("networks", ""),
        ("nodes", ""),
        ("nodes", "project_id = '1' AND"),
        ("operations", ""),
        ("operations", "project_id = '1' AND"),
        ("instances", "project_id = '1' AND"),
        ("audit", ""),
        ("audit", "project_id = '1' AND"),
    ] {
        let query = format!("SELECT * FROM {table} WHERE {filter} id > '0' ORDER BY id LIMIT 101");
        let steps = plan(&database.url, &query);
        let good = steps.iter().all(|step| step.starts_with("SEARCH ") && step.contains("id>?"));
        assert!(good && !steps.is_empty(), "{query}: {steps:?}");
    }
}
