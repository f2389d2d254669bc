//! Tasks whose texts lie in columns of the rows of a split.

use lsa_tests::test_hub::TestHub;

use super::parquet::Cells::{Lists, Texts};
use super::{Case, check, gzip, parquet, readme, repo};

/// The tasks that are read here.
pub const TASKS: [&str; 20] = [
    "Banking77Classification",
    "MassiveIntentClassification",
    "CEDRClassification",
    "RuSciBenchYearPublRegression",
    "ArxivClusteringS2S",
    "BigPatentClustering",
    "AlloProfClusteringS2S.v2",
    "BIOSSES",
    "STSBenchmark",
    "STS17",
    "TwitterURLCorpus",
    "SprintDuplicateQuestions",
    "XNLI",
    "Tatoeba",
    "NTREXBitextMining",
    "SummEval",
    "CrisisMMDHumanitarianClassification",
    "FineGrainOCRITClustering",
    "AROVisualAttribution",
    "BUCC.v2",
];

const NO_TRAIN: &str = "no split was asked for, and there is no split \"train\"; \"test\" is read";

#[test]
fn classification_beside_a_script() {
    let name = "Banking77Classification";
    let train = "{\"text\": \"I lost my card\", \"label\": 11}\n{\"text\": \"  Is it “here”?\\n\", \"label\": 11}\n\
                 {\"text\": \"\", \"label\": 3}\n{\"text\": \"I lost my card\", \"label\": 11}\n";
    let hub = TestHub::start([repo(name)
        .file("README.md", "---\nlanguage:\n- en\n---\n# Banking77\n")
        .file("banking77.py", "raise SystemExit")
        .file("prepare_data.py", "raise SystemExit")
        .file("train.jsonl", train)
        .file("test.jsonl", "{\"text\": \"How do I top up?\", \"label\": 5}")]);
    let train = [
        "train.jsonl 0 text: I lost my card",
        "train.jsonl 1 text:   Is it “here”?\n",
        "train.jsonl 3 text: I lost my card",
    ];
    let test = ["test.jsonl 0 text: How do I top up?"];
    let case = |name, split, chosen, texts, warnings| Case { name, split, chosen, texts, warnings };
    check(&hub, case(name, None, "train of default", &train, &[]));
    check(&hub, case("banking77classification", Some("train"), "train of default", &train, &[]));
    check(&hub, case(name, Some("test"), "test of default", &test, &[]));
    let said = "there is no split \"validation\"; \"test\" is read (there are: test, train)";
    check(&hub, case(name, Some("validation"), "test of default", &test, &[said]));
    assert!(hub.requests_for(".py").is_empty());
}

#[test]
fn classification_in_a_folder_for_each_language() {
    let name = "MassiveIntentClassification";
    let line =
        |text: &str| gzip(&format!("{{\"id\": \"1\", \"label\": \"alarm_set\", \"text\": \"{text}\"}}\n"));
    let hub = TestHub::start([repo(name)
        .file("af/train.jsonl.gz", line("maak my wakker"))
        .file("de/train.jsonl.gz", line("weck mich"))
        .file("de/test.jsonl.gz", line("weck mich nicht"))
        .file("en/train.jsonl.gz", line("wake me up"))]);
    let english = Case {
        name,
        split: None,
        chosen: "train of en",
        texts: &["en/train.jsonl.gz 0 text: wake me up"],
        warnings: &["\"MassiveIntentClassification/en\" is read (there are: af, am, ar"],
    };
    check(&hub, english);
    let german = Case {
        name: "MassiveIntentClassification/DE",
        split: Some("test"),
        chosen: "test of de",
        texts: &["de/test.jsonl.gz 0 text: weck mich nicht"],
        warnings: &[],
    };
    check(&hub, german);
}

#[test]
fn multilabel_classification_in_shards() {
    let name = "CEDRClassification";
    let shard = |texts: &[&str]| {
        let labels = vec![&["joy", "surprise"][..]; texts.len()];
        parquet::file(&[("text", Texts(texts)), ("label", Lists(&labels))])
    };
    let hub = TestHub::start([repo(name)
        .file("README.md", readme("default train data/train-*\ndefault test data/test-*"))
        .large_file("data/train-00000-of-00002.parquet", shard(&["Ура!", "Хорошо"]))
        .large_file("data/train-00001-of-00002.parquet", shard(&["Ой"]))
        .large_file("data/test-00000-of-00001.parquet", shard(&["Нет"]))]);
    let case = Case {
        name,
        split: None,
        chosen: "train of default",
        texts: &[
            "data/train-00000-of-00002.parquet 0 text: Ура!",
            "data/train-00000-of-00002.parquet 1 text: Хорошо",
            "data/train-00001-of-00002.parquet 0 text: Ой",
        ],
        warnings: &[],
    };
    check(&hub, case);
}

#[test]
fn regression() {
    let name = "RuSciBenchYearPublRegression";
    let hub = TestHub::start([repo(name)
        .file(
            "README.md",
            readme("yearpubl_en test yearpubl_en/test-*\nyearpubl_en train yearpubl_en/train-*"),
        )
        .file("yearpubl_en/train-00000-of-00001.parquet", parquet::file(&[("text", Texts(&["On graphs"]))]))
        .file("yearpubl_en/test-00000-of-00001.parquet", parquet::file(&[("text", Texts(&["On trees"]))]))]);
    let texts = ["yearpubl_en/train-00000-of-00001.parquet 0 text: On graphs"];
    let case =
        |name, warnings| Case { name, split: None, chosen: "train of yearpubl_en", texts: &texts, warnings };
    check(&hub, case("RuSciBenchYearPublRegression/yearpubl_en", &[]));
    let said = "\"RuSciBenchYearPublRegression/yearpubl_en\" is read (there are: yearpubl_ru, yearpubl_en)";
    check(&hub, case("RuSciBenchYearPublRegression", &[said]));
}

#[test]
fn clustering_of_lists_and_of_sentences() {
    // Each row is a set of its own.
    let lists = "{\"sentences\": [\"Quarks\", \"Gluons\", \"\"], \"labels\": [\"hep\", \"hep\", \"math\"]}\n\
                 {\"sentences\": [\"Knots\"], \"labels\": [\"math\"]}\n";
    let in_parquet = parquet::file(&[
        ("sentences", Lists(&[&["A valve", "A pump"], &[], &["A lamp"]])),
        ("labels", Lists(&[&["f", "f"], &[], &["h"]])),
    ]);
    let sentences =
        parquet::file(&[("sentences", Texts(&["Le verbe", "Le nom"])), ("labels", Texts(&["a", "b"]))]);
    let hub = TestHub::start([
        repo("ArxivClusteringS2S").large_file("test.jsonl.gz", gzip(lists)),
        repo("BigPatentClustering")
            .file("README.md", readme("default test data/test-*"))
            .large_file("data/test-00000-of-00001.parquet", in_parquet),
        repo("AlloProfClusteringS2S.v2").file("data/test-00000-of-00001.parquet", sentences),
    ]);
    let case =
        |name, texts| Case { name, split: None, chosen: "test of default", texts, warnings: &[NO_TRAIN] };
    let texts = [
        "test.jsonl.gz 0 sentences: Quarks",
        "test.jsonl.gz 0 sentences: Gluons",
        "test.jsonl.gz 1 sentences: Knots",
    ];
    check(&hub, case("ArxivClusteringS2S", &texts));
    let texts = [
        "data/test-00000-of-00001.parquet 0 sentences: A valve",
        "data/test-00000-of-00001.parquet 0 sentences: A pump",
        "data/test-00000-of-00001.parquet 2 sentences: A lamp",
    ];
    check(&hub, case("BigPatentClustering", &texts));
    let texts = [
        "data/test-00000-of-00001.parquet 0 sentences: Le verbe",
        "data/test-00000-of-00001.parquet 1 sentences: Le nom",
    ];
    check(&hub, case("AlloProfClusteringS2S.v2", &texts));
}

#[test]
fn similar_sentences() {
    let row = |a: &str, b: &str| {
        format!("{{\"split\": \"x\", \"sentence1\": \"{a}\", \"sentence2\": \"{b}\", \"score\": 2.5}}\n")
    };
    let parts = ["train", "validation", "test"].map(|part| (part, gzip(&row(part, "one"))));
    let benchmark = parts
        .into_iter()
        .fold(repo("STSBenchmark"), |repo, (part, bytes)| repo.file(&format!("{part}.jsonl.gz"), bytes));
    let pairs = |a, b| parquet::file(&[("sentence1", Texts(a)), ("sentence2", Texts(b))]);
    let hub = TestHub::start([
        benchmark,
        repo("BIOSSES").file("test.jsonl.gz", gzip(&(row("a cell", "cells") + &row("a gene", "")))),
        repo("STS17")
            .file(
                "README.md",
                readme("ar-ar test ar-ar/test*\nen-de test en-de/test*\nen-en test en-en/test*"),
            )
            .file("ar-ar/test.parquet", pairs(&["قطة"], &["كلب"]))
            .file("en-de/test.parquet", pairs(&["a cat"], &["ein Hund"]))
            .file("en-en/test.parquet", pairs(&["a cat"], &["a dog"])),
    ]);
    let dev = Case {
        name: "STSBenchmark",
        split: Some("dev"),
        chosen: "validation of default",
        texts: &["validation.jsonl.gz 0 sentence1: validation", "validation.jsonl.gz 0 sentence2: one"],
        warnings: &[],
    };
    check(&hub, dev);
    let fallen_back = Case {
        name: "BIOSSES",
        split: None,
        chosen: "test of default",
        texts: &[
            "test.jsonl.gz 0 sentence1: a cell",
            "test.jsonl.gz 0 sentence2: cells",
            "test.jsonl.gz 1 sentence1: a gene",
        ],
        warnings: &[NO_TRAIN],
    };
    check(&hub, fallen_back);
    let english = Case {
        name: "STS17",
        split: Some("test"),
        chosen: "test of en-en",
        texts: &["en-en/test.parquet 0 sentence1: a cat", "en-en/test.parquet 0 sentence2: a dog"],
        warnings: &["\"STS17/en-en\" is read"],
    };
    check(&hub, english);
    let crossed = Case {
        name: "STS17/en-de",
        split: Some("test"),
        chosen: "test of en-de",
        texts: &["en-de/test.parquet 0 sentence1: a cat", "en-de/test.parquet 0 sentence2: ein Hund"],
        warnings: &[],
    };
    check(&hub, crossed);
}

#[test]
fn pairs_in_one_row_of_lists() {
    let twitter = "{\"sent1\": [\"a b\", \"c d\"], \"sent2\": [\"A B\", \"e f\"], \"labels\": [1, 0]}\n";
    let sprint = parquet::file(&[
        ("sent1", Lists(&[&["sim card", "battery"]])),
        ("sent2", Lists(&[&["SIM", "screen"]])),
    ]);
    let xnli = "{\"premise\": \"It rains\", \"hypothesis\": \"It is wet\", \"label\": 0}\n";
    let hub = TestHub::start([
        repo("TwitterURLCorpus").large_file("test.jsonl.gz", gzip(twitter)),
        repo("SprintDuplicateQuestions").file("data/test-00000-of-00001.parquet", sprint),
        repo("XNLI").file("en/test.jsonl", xnli).file("de/test.jsonl", "{}"),
    ]);
    let case = |name, chosen, texts, warnings| Case { name, split: Some("test"), chosen, texts, warnings };
    let texts = [
        "test.jsonl.gz 0 sent1: a b",
        "test.jsonl.gz 0 sent1: c d",
        "test.jsonl.gz 0 sent2: A B",
        "test.jsonl.gz 0 sent2: e f",
    ];
    check(&hub, case("TwitterURLCorpus", "test of default", &texts, &[]));
    let texts = [
        "data/test-00000-of-00001.parquet 0 sent1: sim card",
        "data/test-00000-of-00001.parquet 0 sent1: battery",
        "data/test-00000-of-00001.parquet 0 sent2: SIM",
        "data/test-00000-of-00001.parquet 0 sent2: screen",
    ];
    check(&hub, case("SprintDuplicateQuestions", "test of default", &texts, &[]));
    let texts = ["en/test.jsonl 0 premise: It rains", "en/test.jsonl 0 hypothesis: It is wet"];
    check(
        &hub,
        case("XNLI", "test of en", &texts, &["\"XNLI/en\" is read", "MTEB changes the rows of XNLI"]),
    );
}

#[test]
fn pairs_of_languages() {
    let pair = |a: &str, b: &str| format!("{{\"sentence1\": \"{a}\", \"sentence2\": \"{b}\"}}\n");
    let parallel = parquet::file(&[
        ("afr_Latn", Texts(&["Môre", "Aand"])),
        ("deu_Latn", Texts(&["Morgen", "Abend"])),
        ("eng_Latn", Texts(&["Morning", "Evening"])),
    ]);
    let hub = TestHub::start([
        repo("Tatoeba")
            .file("test/deu-eng.jsonl.gz", gzip(&pair("Hallo", "Hello")))
            .file("test/sqi-eng.jsonl.gz", gzip(&pair("Tungjatjeta", "Hello"))),
        repo("BUCC.v2")
            .file(
                "de-en/test-00000-of-00001.parquet",
                parquet::file(&[("sentence1", Texts(&["Ja"])), ("sentence2", Texts(&["Yes"]))]),
            )
            .file("fr-en/test-00000-of-00001.parquet", parquet::file(&[("sentence1", Texts(&["Oui"]))])),
        repo("NTREXBitextMining").large_file("data/test-00000-of-00001.parquet", parallel),
    ]);
    let case = |name, chosen, texts, warnings| Case { name, split: Some("test"), chosen, texts, warnings };
    let texts = ["test/deu-eng.jsonl.gz 0 sentence1: Hallo", "test/deu-eng.jsonl.gz 0 sentence2: Hello"];
    check(&hub, case("Tatoeba/deu-eng", "test of deu-eng", &texts, &[]));
    let texts =
        ["test/sqi-eng.jsonl.gz 0 sentence1: Tungjatjeta", "test/sqi-eng.jsonl.gz 0 sentence2: Hello"];
    check(&hub, case("Tatoeba", "test of sqi-eng", &texts, &["\"Tatoeba/sqi-eng\" is read"]));
    let file = "de-en/test-00000-of-00001.parquet";
    let texts = [format!("{file} 0 sentence1: Ja"), format!("{file} 0 sentence2: Yes")];
    let texts = texts.each_ref().map(String::as_str);
    check(&hub, case("BUCC.v2", "test of de-en", &texts, &["\"BUCC.v2/de-en\" is read"]));
    let texts = [
        "data/test-00000-of-00001.parquet 0 eng_Latn: Morning",
        "data/test-00000-of-00001.parquet 0 deu_Latn: Morgen",
        "data/test-00000-of-00001.parquet 1 eng_Latn: Evening",
        "data/test-00000-of-00001.parquet 1 deu_Latn: Abend",
    ];
    check(&hub, case("NTREXBitextMining/eng_Latn-deu_Latn", "test of default", &texts, &[]));
}

#[test]
fn summaries() {
    let row = "{\"id\": \"1\", \"text\": \"A long story.\", \"human_summaries\": [\"Short.\", \"Shorter.\"], \
               \"machine_summaries\": [\"Brief.\"], \"relevance\": [1.5]}\n";
    let hub = TestHub::start([repo("SummEval").file("test.jsonl.gz", gzip(row))]);
    let case = Case {
        name: "SummEval",
        split: None,
        chosen: "test of default",
        texts: &[
            "test.jsonl.gz 0 text: A long story.",
            "test.jsonl.gz 0 human_summaries: Short.",
            "test.jsonl.gz 0 human_summaries: Shorter.",
            "test.jsonl.gz 0 machine_summaries: Brief.",
        ],
        warnings: &[NO_TRAIN],
    };
    check(&hub, case);
}

#[test]
fn texts_beside_images() {
    let crisis = parquet::file(&[("image", Texts(&["JPEG"])), ("text", Texts(&["The bridge is gone"]))]);
    let captions = parquet::file(&[
        ("image", Texts(&["JPEG"])),
        ("true_caption", Texts(&["a horse eats grass"])),
        ("false_caption", Texts(&["grass eats a horse"])),
    ]);
    let path = "data/test-00000-of-00001.parquet";
    let hub = TestHub::start([
        repo("CrisisMMDHumanitarianClassification")
            .file("humanitarian/train-00000-of-00001.parquet", crisis.clone())
            .file("informative/train-00000-of-00001.parquet", parquet::file(&[("text", Texts(&["no"]))])),
        repo("FineGrainOCRITClustering").file(path, crisis),
        repo("AROVisualAttribution").file(path, captions),
    ]);
    let case = |name, chosen, texts, warnings| Case { name, split: None, chosen, texts, warnings };
    let texts = ["humanitarian/train-00000-of-00001.parquet 0 text: The bridge is gone"];
    check(&hub, case("CrisisMMDHumanitarianClassification", "train of humanitarian", &texts, &[]));
    let texts = ["data/test-00000-of-00001.parquet 0 text: The bridge is gone"];
    check(&hub, case("FineGrainOCRITClustering", "test of default", &texts, &[NO_TRAIN]));
    let texts = [
        "data/test-00000-of-00001.parquet 0 true_caption: a horse eats grass",
        "data/test-00000-of-00001.parquet 0 false_caption: grass eats a horse",
    ];
    check(&hub, case("AROVisualAttribution", "test of default", &texts, &[NO_TRAIN]));
}
