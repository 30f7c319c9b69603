# Chronik: `make run` builds and serves, `make test` runs every test. Everything else is for
# people who work on it; `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
CHRONIK := target/release/chronik
PORT ?= 9092
DATA ?= ./data

.PHONY: help need run build test check static deny fuzz crash client-suites idle quick overload micro bench-kafka perf-matrix settings clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

need: # what the build itself needs, named in one sentence each
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install rustup, then 'rustup toolchain install 1.95' (any newer stable works too)."; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing (io_uring's liburing and zstd are C): apt-get install gcc"; exit 1; }
	@command -v git >/dev/null || { echo "git is missing (glommio's build script calls it): apt-get install git"; exit 1; }
	@command -v make >/dev/null || { echo "make is missing: apt-get install make"; exit 1; }

run: build ## build and serve on 127.0.0.1:9092 with data in ./data (PORT=, DATA= change that)
	exec $(CHRONIK) serve --port $(PORT) --data $(DATA)

build: need ## the broker, optimised: target/release/chronik
	$(CARGO) build --release --locked

test: need ## every test: unit, over the wire, other people's clients
	$(CARGO) build --locked --workspace
	tests/clients/install
	@rm -f target/skipped
	@CHRONIK_TEST_SKIPPED=$(CURDIR)/target/skipped $(CARGO) test --locked --workspace; status=$$?; \
	  [ ! -e target/skipped ] || sort target/skipped | uniq -c; \
	  echo "$$(cat target/skipped 2>/dev/null | wc -l) tests or parts of them were skipped"; exit $$status

check: static test ## what CI runs: formatting, lints, licences, tests

static: need ## formatting, clippy with warnings denied, licences
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(MAKE) --no-print-directory deny

deny: ## licences and advisories of every dependency (skipped, loudly, without cargo-deny)
	@if command -v cargo-deny >/dev/null; then \
	  $(CARGO) deny --offline check licenses bans sources && \
	  { $(CARGO) deny check advisories || echo "NOTE: advisories were not checked (no advisory database reachable, or see above)"; }; \
	else echo "SKIPPED: dependency licences and advisories (cargo install --locked cargo-deny)"; fi

fuzz: need ## every fuzz target for SECONDS=60 each
	CHRONIK_FUZZ_SECONDS=$(or $(SECONDS),60) $(CARGO) test --locked -p chronik-protocol fuzz -- --nocapture

crash: need ## the kill -9 loop, ROUNDS=500
	CHRONIK_CRASH_ROUNDS=$(or $(ROUNDS),500) $(CARGO) test --locked --test crash -- --nocapture

client-suites: build ## the tests of franz-go, kafka-python and node-rdkafka, beside Apache Kafka (SUITES=franz-go for one)
	tests/clients/suites/run $(CHRONIK) $(SUITES)

idle: build ## processor time of an idle broker over 20 s: 4 shards, 100 topics, 50 connections
	CHRONIK_TEST_BINARY=$(abspath $(CHRONIK)) CHRONIK_IDLE_SECONDS=20 $(CARGO) test --locked --test idle -- --nocapture

quick: build ## the quick benchmark: twenty loads in about three minutes (ARGS="--only 'closed 100'" for some)
	$(CARGO) run --release --locked -p chronik-bench -- quick --spawn $(CHRONIK) $(ARGS)

overload: build ## a minute of far too much load: memory, fairness, errors (ARGS="--override key=value")
	$(CARGO) run --release --locked -p chronik-bench -- overload --spawn $(CHRONIK) $(ARGS)

micro: need ## micro-benchmarks of the hot path, then its instructions
	$(CARGO) bench --locked -p chronik-protocol -p chronik-io -p chronik-shards --bench wire --bench append --bench mesh --bench shard
	$(CARGO) bench --locked -p chronik-protocol --bench instructions

bench-kafka: build ## Chronik beside Apache Kafka, 5 pairs: target/bench-kafka (ARGS="--quick --only closed/" for some)
	tests/clients/install java kcat
	$(CARGO) build --release --locked -p chronik-bench
	target/release/chronik-bench compare --chronik $(CHRONIK) $(ARGS)

perf-matrix: build ## kafka-producer-perf-test, a million records of every size, codec, acks
	tests/clients/install java
	CHRONIK_TEST_BINARY=$(CURDIR)/$(CHRONIK) CHRONIK_PERF_MATRIX=full $(CARGO) test --locked --test kafka_tools perf_test -- --nocapture

settings: need ## the README's table of settings and SETTINGS.md, from protocol/schema/configs.tsv
	CHRONIK_WRITE_SETTINGS=1 $(CARGO) test --locked -p chronik --lib the_documents_are

clean: ## build output, but not the clients' cache
	$(CARGO) clean
