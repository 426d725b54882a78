# V-QLM: quantize, run and evaluate vision-language models on CPUs.  `make help` lists the targets.

VERSION  := 0.1.0
CC       ?= cc
CFLAGS   ?= -O2 -g
BUILD    ?= build
PREFIX   ?= /usr/local
DESTDIR  ?=

# What every compilation needs.  No -ffast-math and no -march: a kernel names its instruction set itself,
# and the compiler may not fuse a*b+c, so that results do not depend on the machine.
WARN     := -Wall -Wextra -Wpointer-arith -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes -Wvla
VQ_FLAGS := -std=c11 -D_GNU_SOURCE -DVQ_VERSION='"$(VERSION)"' -fopenmp -ffp-contract=off -Ilib $(WARN)
LIBS     := -lzstd -larchive -lopenblas -ljansson -ljpeg -lpng -lutf8proc -lpcre2-8 -lxxhash -lnettle -lm

LIB_SRC  := $(sort $(wildcard lib/*/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o)
TOOL_SRC := $(sort $(wildcard bin/vqlm-*.c))
TOOLS    := $(TOOL_SRC:bin/%.c=$(BUILD)/bin/%)
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
UNITS    := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/tests/%)
BENCH_SRC := $(sort $(wildcard tests/bench/*.c))
BENCHES  := $(BENCH_SRC:tests/bench/%.c=$(BUILD)/bench/%)
# What end-to-end tests ask the library directly.
PROBE_SRC := $(sort $(wildcard tests/e2e/*.c))
PROBES   := $(PROBE_SRC:tests/e2e/%.c=$(BUILD)/e2e/%)
MAN      := $(sort $(wildcard man/*.[157]))

# Fuzz targets (tests/fuzz): clang's libFuzzer; the library once more, under build/fuzz.  Kernels that take a sanitizer
# minutes to compile, and that see no input of anybody's, go without.
FUZZ_CC    ?= clang
FUZZ_SAN   := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FUZZ_PLAIN := $(wildcard lib/kernel/attend_avx*.c lib/kernel/qgemm_avx512*.c)
FUZZ_SRC   := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZERS    := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)
FUZZ_OBJ   := $(LIB_SRC:%.c=$(BUILD)/fuzz/%.o)
T          ?= 60

ASAN     := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

.PHONY: all deps demo table2 ablation table4 size-accuracy size-7b check check-matrix check-cluster deps-cluster fuzz-run fuzzers lint asan bench bench-layers bench-real install uninstall dist clean help units benches format
.DELETE_ON_ERROR:
.SECONDARY:

all: $(TOOLS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(VQ_FLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libvqlm.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/bin/%: $(BUILD)/bin/%.o $(BUILD)/bin/cli.o $(BUILD)/libvqlm.a
	$(CC) $(CFLAGS) -fopenmp -o $@ $^ $(LDFLAGS) $(LIBS)

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(BUILD)/bin/cli.o $(BUILD)/libvqlm.a
	$(CC) $(CFLAGS) -fopenmp -o $@ $^ $(LDFLAGS) -lcmocka $(LIBS)

$(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(BUILD)/libvqlm.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fopenmp -o $@ $^ $(LDFLAGS) $(LIBS)

$(BUILD)/e2e/%: $(BUILD)/tests/e2e/%.o $(BUILD)/libvqlm.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -fopenmp -o $@ $^ $(LDFLAGS) $(LIBS)
$(BUILD)/e2e/act_codes: LDFLAGS += -Wl,--wrap=vq_act_quantize

$(BUILD)/fuzz/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) -O1 -g $(FUZZ_FLAGS) $(VQ_FLAGS) -MMD -MP -c -o $@ $<
$(FUZZ_OBJ): FUZZ_FLAGS = -fsanitize=fuzzer-no-link $(FUZZ_SAN)
$(FUZZ_PLAIN:%.c=$(BUILD)/fuzz/%.o): FUZZ_FLAGS =
$(FUZZERS:$(BUILD)/fuzz/%=$(BUILD)/fuzz/tests/fuzz/%.o): FUZZ_FLAGS = -DVQ_LIBFUZZER -fsanitize=fuzzer-no-link $(FUZZ_SAN)

$(BUILD)/fuzz/libvqlm.a: $(FUZZ_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(FUZZERS): $(BUILD)/fuzz/%: $(BUILD)/fuzz/tests/fuzz/%.o $(BUILD)/fuzz/libvqlm.a
	$(FUZZ_CC) -fopenmp -fsanitize=fuzzer $(FUZZ_SAN) -o $@ $^ $(LDFLAGS) $(LIBS)

fuzzers: $(FUZZERS)

units: $(UNITS) $(PROBES)
benches: $(BENCHES)

deps: ## install the Debian packages that are missing
	@tests/deps.sh

demo: deps ## quantize and evaluate the embedded model; table and chart under build/demo
	@$(MAKE) --no-print-directory all
	pipelines/demo.sh $(BUILD)/bin $(BUILD)/demo

table2: deps ## methods by widths by activation schemes, both models; under build/table2
	@$(MAKE) --no-print-directory all
	pipelines/table2.sh $(BUILD)/bin $(BUILD)/table2

ablation: deps ## what each term of Q-VLM brings and costs; partitions; under build/ablation
	@$(MAKE) --no-print-directory all
	pipelines/ablation.sh $(BUILD)/bin $(BUILD)/ablation

table4: deps ## time, memory and accuracy for each method; under build/table4
	@$(MAKE) --no-print-directory all
	pipelines/table4.sh $(BUILD)/bin $(BUILD)/table4

size-accuracy: deps ## memory and accuracy with blocks removed, with and without GPTQ; under build/size-accuracy
	@$(MAKE) --no-print-directory all
	pipelines/size-accuracy.sh $(BUILD)/bin $(BUILD)/size-accuracy

size-7b: deps ## bytes of LLaMA-7B's weights with blocks removed, beside published memory; under build/size-7b
	@$(MAKE) --no-print-directory $(BUILD)/bench/memory
	pipelines/size-7b.sh $(BUILD)/bench/memory $(BUILD)/size-7b

check: deps ## build and run every test
	@$(MAKE) --no-print-directory all units benches
	@BUILD=$(BUILD) tests/run.sh

deps-cluster: ## what check-cluster needs: Slurm, munge, sshd, GNU parallel, rsync
	@tests/deps.sh slurm-wlm slurm-wlm-basic-plugins munge openssh-server openssh-client parallel rsync

check-cluster: all ## pipelines/cluster on this machine, with a host killed (after make deps-cluster)
	@for p in slurmctld slurmd munged /usr/sbin/sshd parallel rsync jq; do command -v $$p >/dev/null || \
		{ echo "check-cluster: no $$p here; make deps-cluster installs it" >&2; exit 4; }; done
	@BUILD=$(BUILD) tests/run.sh tests/cluster/*.bats

check-matrix: deps ## every instruction set: x86's kernels, also sanitized; arm64 in an emulator (cross compiler, qemu)
	@BUILD=$(BUILD) ASAN="$(ASAN)" tests/matrix.sh

fuzz-run: ## look for inputs that break a reader, T=60 seconds in all (with clang's libFuzzer, ASan and UBSan)
	@tests/deps.sh clang libomp-dev
	@nice $(MAKE) --no-print-directory all $(BUILD)/bench/make_ckpt $(BUILD)/tests/test_fuzz fuzzers
	@nice tests/fuzz/run.sh $(BUILD) $(T) $(TARGETS)

lint: ## layers, man pages, shell scripts, words and formatting
	@tests/lint/run.sh

asan: ## the unit and end-to-end tests under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/asan CFLAGS="$(ASAN)" all units benches
	@BUILD=$(BUILD)/asan VQLM_SANITIZED=1 tests/run.sh

bench: ## speed of the kernels and the tools beside the machine's limits
	@$(MAKE) --no-print-directory all benches
	@BUILD=$(BUILD) tests/bench/run.sh

bench-layers: ## every quantizer on twelve linears of a real model (wants VQLM_DATA)
	@$(MAKE) --no-print-directory $(BUILD)/bench/layers
	@$(BUILD)/bench/layers $${VQLM_DATA:-../shared/data}/vit-tiny | tee $(BUILD)/layers.tsv

bench-real: ## every method on two real models (wants VQLM_DATA); tables under build/real
	@$(MAKE) --no-print-directory all $(BUILD)/bench/vit $(BUILD)/bench/stories
	@BUILD=$(BUILD) tests/bench/real.sh

install: all ## programs and man pages under $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(TOOLS) $(DESTDIR)$(PREFIX)/bin
	for m in $(MAN); do d=$(DESTDIR)$(PREFIX)/share/man/man$${m##*.}; install -d $$d && install -m 644 $$m $$d || exit 1; done

uninstall: ## remove what install put there
	for t in $(notdir $(TOOLS)); do rm -f $(DESTDIR)$(PREFIX)/bin/$$t; done
	for m in $(notdir $(MAN)); do rm -f $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$$m; done

dist: ## a source archive of the committed tree
	@mkdir -p $(BUILD)
	git archive --format=tar.gz --prefix=vqlm-$(VERSION)/ -o $(BUILD)/vqlm-$(VERSION).tar.gz HEAD

format: ## rewrite the C sources with clang-format
	clang-format -i $$(git ls-files '*.c' '*.h')

clean: ## remove build/
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile | expand -t 21

-include $(LIB_OBJ:.o=.d) $(TOOL_SRC:%.c=$(BUILD)/%.d) $(UNIT_SRC:%.c=$(BUILD)/%.d) $(BENCH_SRC:%.c=$(BUILD)/%.d) $(PROBE_SRC:%.c=$(BUILD)/%.d) $(BUILD)/bin/cli.d
-include $(FUZZ_OBJ:.o=.d) $(FUZZ_SRC:%.c=$(BUILD)/fuzz/%.d)
