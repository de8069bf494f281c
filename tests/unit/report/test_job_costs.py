"""What the jobs took: from Snakemake's benchmark files to a table, and from there to the page."""

import csv

from bitlaw.report import job_costs, tables

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(path, seconds, memory, processor):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{memory}\t1\t1\t1\t0.00\t0.00\t50.00\t{processor}\n")


def test_a_row_for_each_job(tmp_path):
    benchmark(tmp_path / "table.tsv", 1.5, 100.25, 1.25)
    benchmark(tmp_path / "compress/text/tiny/step5.tsv", 20.0, 900.0, 30.0)
    benchmark(tmp_path / "fit/text.tsv", 0.02, "NA", "-")
    assert job_costs.rows(tmp_path) == [
        {"rule": "compress", "job": "text/tiny/step5", "seconds": 20.0, "cpu_seconds": 30.0, "peak_memory_mb": 900.0},
        {"rule": "fit", "job": "text", "seconds": 0.02, "cpu_seconds": "", "peak_memory_mb": ""},
        {"rule": "table", "job": "", "seconds": 1.5, "cpu_seconds": 1.25, "peak_memory_mb": 100.25},
    ]
    assert job_costs.rows(tmp_path / "none") == []


def test_a_row_for_each_rule_on_the_page(tmp_path):
    benchmark(tmp_path / "compress/text/tiny/step5.tsv", 20.0, 900.0, 30.0)
    benchmark(tmp_path / "compress/text/tiny/step7.tsv", 10.0, 950.0, 12.0)
    benchmark(tmp_path / "fit/text.tsv", 0.02, "NA", "-")
    with open(tmp_path / "benchmarks.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, job_costs.COLUMN_NAMES)
        writer.writeheader()
        writer.writerows(job_costs.rows(tmp_path))
    compress, fit = tables.OF_OTHER_STAGES["benchmarks"](tmp_path / "benchmarks.csv")["rows"]
    assert [cell["text"] for cell in compress] == ["compress", "2", "30.0", "20.0", "42.0", "950"]
    assert [cell["text"] for cell in fit] == ["fit", "1", "0.0", "0.0", "", ""]
