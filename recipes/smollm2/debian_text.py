#!/usr/bin/env python3
"""Training text of three kinds out of Debian bookworm packages.

Writes three files of JSON Lines, packed by zstd -19, each line {"id", "source", "text"}:
  debian_code_train.jsonl.zst   program sources, a document for each project
  debian_latex_train.jsonl.zst  mathematical prose in LaTeX (some Texinfo and reStructuredText)
  debian_docs_train.jsonl.zst   manuals and other documentation as plain text

Packages are fetched and read, never installed.  Needs apt-get, dpkg-deb and zstd, and the
machine's own apt sources to name bookworm.  A package that cannot be had is left out, with a
message; running again fetches only what is missing and writes the files anew.
"""

import argparse
import concurrent.futures
import gzip
import hashlib
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

EXAMPLE = """example:
  recipes/smollm2/debian_text.py --output debian-text --work debian-downloads \\
      --held-out code_val.jsonl.zst --held-out latex_val.jsonl.zst
"""

# ---- What is fetched ---------------------------------------------------------------------
# "source:" marks a source package.  Libraries whose own package already holds their sources
# (Python, Ruby, ...) are taken from it: such packages are smaller, and without the tests.
# None of these is in code_train.jsonl.zst; tornado, flask and libuv, their forks and packages
# that adapt their sources (quart) must stay out, since the validation text is made of them.

CODE_PACKAGES = {
    "python": """
        python3-gunicorn python3-mypy python3-aiohttp python3-requests python3-urllib3 python3-click
        python3-gevent python3-cherrypy3 python3-starlette python3-httpx python3-attr python3-pytest
        python3-networkx python3-celery python3-kombu python3-docutils python3-sphinx python3-falcon
        python3-trio python3-anyio python3-uvicorn python3-websockets pylint black python3-coverage
        python3-pydantic python3-peewee python3-pip python3-setuptools mercurial-common
        python3-breezy python3-scrapy python3-sympy python3-bs4 python3-djangorestframework
        python3-dnspython python3-scapy python3-pymongo python3-redis
        python3-psycopg ansible-core python3-rich python3-cryptography python3-h2 python3-eventlet
        meson scons borgbackup python3-streamlink python3-prompt-toolkit supervisor
        python3-paramiko python3-pyramid python3-asyncssh mitmproxy
        """,
    "c": """
        source:apr source:busybox source:c-ares source:curl source:dnsmasq source:git source:glib2.0
        source:gnutls28 source:hiredis source:iproute2 source:jansson source:json-c
        source:libarchive source:libev source:libevent source:libgcrypt20 source:libmicrohttpd
        source:librdkafka source:libsodium source:liburing source:libwebsockets source:libxml2
        source:lighttpd source:lmdb source:lua5.4 source:mbedtls source:memcached source:mosquitto
        source:musl source:nng source:openssh source:openvpn source:systemd source:tcpdump
        source:tinc source:tmux source:tor source:unbound source:uwsgi source:zlib source:coturn
        source:janus
        """,
    "go": """
        source:etcd source:gh source:golang-github-go-git-go-git source:golang-github-gin-gonic-gin
        source:golang-github-labstack-echo source:golang-golang-x-net source:golang-google-grpc
        source:nats-server source:prometheus source:syncthing golang-github-miekg-dns-dev
        golang-github-valyala-fasthttp-dev
        """,
    "rust": """
        librust-tokio-dev librust-hyper-dev librust-regex-dev source:rust-clap librust-rustls-dev
        librust-h2-dev librust-sequoia-openpgp-dev librust-trust-dns-proto-dev librust-async-std-dev
        """,
    "ruby": """
        ruby-sequel ruby-actionpack ruby-activerecord puma ruby-rack source:rubocop
        """,
    "javascript": """
        node-undici source:eslint source:leaflet source:less.js source:node-webpack node-postcss
        """,
    "cpp": """
        source:abseil source:capnproto source:leveldb source:libtorrent-rasterbar source:nghttp2
        source:poco source:protobuf source:zeromq3 source:yaml-cpp
        """,
}

# In order of preference: the file ends when LATEX_GOAL is reached.  Each line gives a package,
# the files' pattern, and the pattern whose match makes a work (a document) of its own.
LATEX_MANUALS = r"""
source:derivations            tex/.*\.tex$                                  ^
source:pari                   doc/.*\.tex$                                  [^/]+$
source:giac                   doc/en/.*\.tex$                               [^/]+$
source:flint-arb              doc/source/.*\.rst$                           ^
source:flint                  doc/(source/.*\.rst|latex/.*\.tex)$           doc/[a-z]+
source:glpk                   doc/.*\.tex$                                  ^
source:suitesparse            Doc/.*\.tex$                                  ^[^/]+
source:sundials               doc/(arkode|idas|kinsol|shared)/.*\.rst$      doc/[a-z]+
source:hypre                  src/docs/.*\.rst$                             ^
source:lapack                 DOCS/.*\.tex$                                 ^
source:gsl                    doc/.*\.tex$                                  ^
source:hol88                  (Manual|Training|Library)/.*\.tex$            ^(Manual|Training|Library)/[^/]+
source:minlog                 doc/.*\.tex$                                  ^
source:why3                   doc/.*\.(rst|tex)$                            ^
source:sagemath               doc/en/(?!developer|faq|installation).*\.rst$ doc/en/[a-z_]+(/lie)?
source:maxima                 doc/info/[^/]*\.texi(\.in)?$                  ^
source:octave                 doc/(interpreter|liboctave)/.*\.txi(\.in)?$   ^
source:ginac                  doc/.*\.texi$                                 ^
source:cln                    doc/.*\.texi$                                 ^
source:mpfr4                  doc/.*\.(texi|tex)$                           ^
source:epix                   doc/.*\.texi$                                 ^
source:gmsh                   doc/texinfo/.*\.texi$                         ^
source:gap-sonata             \.(tex|msk)$                                  ^
source:gap-crystcat           \.tex$                                        ^
source:gap-alnuth             \.tex$                                        ^
source:gap-hapcryst           \.(tex|xml)$                                  ^
source:gap-radiroot           \.tex$                                        ^
source:hevea                  examples/.*\.tex$                             ^
axiom-hypertex-data           \.pamphlet(\.gz)?$                            [^/]+$
gretl-doc                     doc/tex/.*\.tex(\.gz)?$                       ^
freefem-doc                   \.tex(\.gz)?$                                 ^
gap-autpgrp                   \.tex(\.gz)?$                                 ^
gap-aclib                     \.tex(\.gz)?$                                 ^
gap-fga                       \.tex(\.gz)?$                                 ^
gap-cryst                     \.tex(\.gz)?$                                 ^
texlive-lang-english          \.tex(\.gz)?$                                 .*/
texlive-science-doc           \.tex(\.gz)?$                                 .*/
texlive-latex-base-doc        \.tex(\.gz)?$                                 .*/
texlive-latex-recommended-doc \.tex(\.gz)?$                                 .*/
texlive-humanities-doc        \.tex(\.gz)?$                                 .*/
texlive-pictures-doc          \.tex(\.gz)?$                                 .*/
texlive-metapost-doc          \.tex(\.gz)?$                                 .*/
texlive-pstricks-doc          \.tex(\.gz)?$                                 .*/
texlive-publishers-doc        \.tex(\.gz)?$                                 .*/
"""

# R packages that carry vignettes written in Sweave or knitr.
VIGNETTE_PACKAGES = """
    r-bioc-affy r-bioc-all r-bioc-altcdfenvs r-bioc-annotate r-bioc-annotationdbi
    r-bioc-arrayexpress r-bioc-biobase r-bioc-biocparallel r-bioc-biocstyle r-bioc-biostrings
    r-bioc-biovizbase r-bioc-bladderbatch r-bioc-bsgenome r-bioc-cner r-bioc-consensusclusterplus
    r-bioc-ctc r-bioc-cummerbund r-bioc-delayedarray r-bioc-deseq r-bioc-dirichletmultinomial
    r-bioc-dnacopy r-bioc-drimseq r-bioc-ebseq r-bioc-edger r-bioc-genefilter r-bioc-geneplotter
    r-bioc-genomeinfodb r-bioc-genomicalignments r-bioc-genomicfiles r-bioc-genomicranges
    r-bioc-ggbio r-bioc-goseq r-bioc-graph r-bioc-grohmm r-bioc-gseabase r-bioc-hilbertvis
    r-bioc-iranges r-bioc-limma r-bioc-lpsymphony r-bioc-makecdfenv r-bioc-mergeomics
    r-bioc-metagenomeseq r-bioc-monocle r-bioc-multtest r-bioc-noiseq r-bioc-oligo
    r-bioc-organismdbi r-bioc-pcamethods r-bioc-pwmenrich r-bioc-qusage r-bioc-qvalue r-bioc-rbgl
    r-bioc-rgsepd r-bioc-rots r-bioc-rsamtools r-bioc-rsubread r-bioc-rtracklayer r-bioc-s4vectors
    r-bioc-savr r-bioc-shortread r-bioc-snpstats r-bioc-stringdb r-bioc-sva r-bioc-tfbstools
    r-bioc-titancna r-bioc-variantannotation r-cran-actuar r-cran-adephylo r-cran-aer r-cran-amap
    r-cran-animation r-cran-apcluster r-cran-ape r-cran-aplpack r-cran-bbmle r-cran-biasedurn
    r-cran-bms r-cran-boolnet r-cran-bradleyterry2 r-cran-brobdingnag r-cran-calibrate r-cran-car
    r-cran-cgdsr r-cran-clue r-cran-coin r-cran-colorspace r-cran-cvar r-cran-dbscan r-cran-desolve
    r-cran-devtools r-cran-dimred r-cran-diptest r-cran-distr r-cran-domc r-cran-doparallel
    r-cran-dorng r-cran-e1071 r-cran-effects r-cran-ei r-cran-elliptic r-cran-epi r-cran-erm
    r-cran-etm r-cran-evd r-cran-expint r-cran-expm r-cran-fastcluster r-cran-filehash
    r-cran-fitdistrplus r-cran-flexmix r-cran-formula r-cran-g.data r-cran-gbm r-cran-gbutils
    r-cran-gdata r-cran-geepack r-cran-genoplotr r-cran-geometry r-cran-geosphere r-cran-ggbeeswarm
    r-cran-glmmtmb r-cran-gmm r-cran-gnm r-cran-gower r-cran-gplots r-cran-gridbase r-cran-gridsvg
    r-cran-gsl r-cran-gstat r-cran-gsubfn r-cran-gwidgets r-cran-haplo.stats r-cran-hexbin
    r-cran-hmisc r-cran-hsaur3 r-cran-huge r-cran-hwriter r-cran-hypergeo r-cran-interp
    r-cran-intervals r-cran-ipred r-cran-irace r-cran-irlba r-cran-iso r-cran-iterators r-cran-kedd
    r-cran-kernlab r-cran-knitr r-cran-ks r-cran-kutils r-cran-laeken r-cran-lasso2
    r-cran-learnbayes r-cran-libcoin r-cran-lme4 r-cran-lmtest r-cran-logcondens r-cran-magic
    r-cran-maldiquant r-cran-maldiquantforeign r-cran-maptools r-cran-matrix r-cran-maxlik
    r-cran-maxstat r-cran-mcmc r-cran-metamix r-cran-metap r-cran-mitools r-cran-mixtools
    r-cran-mlmrev r-cran-mnp r-cran-multcomp r-cran-mutoss r-cran-mvtnorm r-cran-nanotime
    r-cran-network r-cran-nmf r-cran-ordinal r-cran-packrat r-cran-pan r-cran-partitions
    r-cran-party r-cran-partykit r-cran-pbdzmq r-cran-pcapp r-cran-phylobase r-cran-plot3d
    r-cran-pls r-cran-powerlaw r-cran-proto r-cran-proxy r-cran-pscl r-cran-psych
    r-cran-psychotools r-cran-psychotree r-cran-psychtools r-cran-qtl r-cran-r.rsp r-cran-rcmdr
    r-cran-rcpp r-cran-rcppannoy r-cran-rcpparmadillo r-cran-rcppeigen r-cran-rcppgsl
    r-cran-rcppmlpack r-cran-rdpack r-cran-registry r-cran-rgdal r-cran-rgenoud r-cran-rjson
    r-cran-rmpfr r-cran-robustbase r-cran-rockchalk r-cran-rodbc r-cran-rpart r-cran-rprotobuf
    r-cran-rrcov r-cran-runit r-cran-sampling r-cran-sandwich r-cran-scatterplot3d r-cran-semtools
    r-cran-seriation r-cran-sets r-cran-shape r-cran-snowfall r-cran-sp r-cran-spacetime
    r-cran-sparsem r-cran-spatstat r-cran-squarem r-cran-stringdist r-cran-strucchange
    r-cran-surveillance r-cran-survey r-cran-survival r-cran-survmisc r-cran-susier
    r-cran-systemfit r-cran-tgp r-cran-th.data r-cran-tikzdevice r-cran-timeseries r-cran-tinytest
    r-cran-tm r-cran-tmvtnorm r-cran-tsp r-cran-uroot r-cran-vcd r-cran-vegan r-cran-vipor
    r-cran-xtable r-cran-xts r-cran-zoo
"""

# package, kind of text and most millions of characters; files' pattern; what makes a group of files
DOCS_PACKAGES = r"""
linux-doc-6.1 text 3.5
    Documentation/(core-api|filesystems|kernel-hacking|locking|networking|process|RCU|scheduler|security)/.*\.(rst|txt)(\.gz)?$
    Documentation/[^/]+
python3.11-doc text 3
    html/_sources/(library|whatsnew/3|howto|tutorial|reference|extending|faq).*\.txt$
    _sources/[^/]+
vim-runtime text 2
    doc/(?!version|todo)[a-z_0-9]+\.txt$
    doc/(usr)?
perl-doc pod 1.5
    pod/perl(?!\d+delta|toc|api|intern|cn|jp|ko|tw)[a-z0-9]+\.pod(\.gz)?$
    pod/
git-doc text 1.5
    git-doc/(?!RelNotes).*\.txt(\.gz)?$
    git-doc/
postgresql-doc-15 html 2.5
    html/(?!catalog|release|errcodes|infoschema|biblio|bookindex)[^/]*\.html$
    html/
jargon-text text 2
    jargon\.txt(\.gz)?$
    ^
debian-policy text 2
    policy\.html/_sources/.*\.rst\.txt$
    ^
debian-handbook html 2
    html/en-US/[^/]*\.html$
    ^
debian-reference-en html 2
    debian-reference/ch[^/]*\.en\.html$
    ^
developers-reference text 2
    _sources/.*\.rst\.txt$
    ^
debian-faq html 2
    FAQ/[^/]*\.en\.html$
    ^
anarchism text 3
    markdown/(intro|sec)[^/]*\.md(\.gz)?$
    markdown/(sec[A-J]|[a-z]+)
sqlite3-doc html 1.5
    doc/sqlite3/(?!releaselog|changes|news|sqlite|keyword|toc|doclist|capi3ref)[^/]*\.html$
    ^
python-django-doc html 2
    html/(topics|howto|intro|ref|faq|internals|misc)/.*\.html$
    html/[a-z]+
apache2-doc html 1.5
    manual/en/.*\.html$
    manual/en/
rust-doc html 2.2
    html/(book|reference|nomicon|rust-by-example|edition-guide|rustc)/(?!(first|second|2018)-edition|print\.html|toc\.html|std/print).*\.html$
    html/[^/]+
postfix-doc html 2
    html/[A-Z_0-9]*README\.html$
    ^
installation-guide-amd64 html 2
    /en/[^/]*\.html$
    ^
"""

CODE_CAP = 450_000            # characters of one project
CODE_LEAST = 60_000
CODE_FILE_BYTES = 150_000
CODE_LINE = 1000
LATEX_CAP = 320_000           # characters of one work
LATEX_LEAST = 30_000
LATEX_GOAL = 34_000_000       # characters of the whole file
DOCS_CAP = 800_000            # characters of one document
DOCS_LEAST = 100_000

SUFFIXES = {
    "python": (".py", ".pyx"),
    "c": (".c", ".h"),
    "go": (".go",),
    "rust": (".rs",),
    "ruby": (".rb",),
    "javascript": (".js", ".mjs", ".cjs", ".jsx", ".ts"),
    "cpp": (".cc", ".cpp", ".cxx", ".c++", ".h", ".hh", ".hpp", ".ipp", ".inl"),
}

# Where packages put libraries: headers show the paths below these.
LIBRARY_ROOTS = re.compile(
    r"^usr/(lib/python3(\.\d+)?/dist-packages|lib/python3(\.\d+)?|share/gocode/src|share/cargo/registry|"
    r"lib/ruby/vendor_ruby|share/rubygems-integration/[^/]+/gems|share/nodejs|share/javascript|"
    r"share|lib|include)/")

NOT_SOURCE_FOLDER = re.compile(
    r"(^|/)(tests?|testing|testsuite|test[-_]?data|unittests?|regress|fixtures?|spec|specs|vendor|vendored|"
    r"_vendor|_vendored|third[-_]?party|thirdparty|external|externals|extern|ext|deps|bundled|"
    r"node_modules|locales?|po|i18n|lang|docs?|documentation|(minimal-)?examples?|samples?|benchmarks?|bench|"
    r"dist|build|min|debian|fuzz|fuzzing|gnulib[^/]*|gl|gnulib-lib|unicode|data)/", re.I)
NOT_SOURCE_FILE = re.compile(
    r"(^|/)(test_[^/]*|[^/]*_tests?\.\w+|[^/]*[-.]test\.\w+|[^/]*[-.]spec\.\w+|conftest\.py|"
    r"[^/]*\.min\.\w+|[^/]*\.pb(\.gw)?\.\w+|[^/]*_pb2(_grpc)?\.py|zz_generated[^/]*|"
    r"[^/]*unicode[^/]*(data|tables)[^/]*|[^/]*\.d\.ts)$", re.I)
VALIDATION_NAME = re.compile(r"tornado|flask|libuv|(^|/)uv[-./]|(^|/)uv/", re.I)
VALIDATION_TEXT = re.compile(r"\buv__\w+\s*\(|(adapted|copied) from (flask|tornado|libuv)", re.I)
GENERATED = re.compile(
    r"do not edit|@generated|automatically generated|auto-?generated|generated (by|from|automatically)|"
    r"machine generated|this file (is|was) generated", re.I)


# ---- Fetching ----------------------------------------------------------------------------

def say(message):
    print(message, flush=True)


class Apt:
    """apt-get with sources, lists and cache of its own, so that the system's stay as they are."""

    def __init__(self, work):
        self.folder = work.resolve() / "apt"
        self.sources = work.resolve() / "sources"
        self.binaries = work.resolve() / "binaries"
        for folder in ("parts", "lists/partial", "cache/archives/partial"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        self.sources.mkdir(exist_ok=True)
        self.binaries.mkdir(exist_ok=True)
        self.write_sources()

    def write_sources(self):
        stanzas, lines = [], []
        for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
            for stanza in path.read_text().split("\n\n"):
                if re.search(r"^Suites:.*\bbookworm\b", stanza, re.M):
                    stanzas.append(re.sub(r"^Types:.*$", "Types: deb deb-src", stanza, flags=re.M))
        one_line = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]
        for path in one_line:
            for line in path.read_text().splitlines() if path.exists() else []:
                if line.startswith("deb ") and "bookworm" in line:
                    lines += [line, "deb-src " + line[4:]]
        if not stanzas and not lines:
            sys.exit("debian_text.py: no apt source names bookworm: add one to /etc/apt/sources.list.d")
        (self.folder / "parts/debian.sources").write_text("\n\n".join(stanzas) + "\n")
        (self.folder / "parts/debian.list").write_text("\n".join(lines) + "\n")

    def run(self, *arguments, cwd=None):
        options = {"Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": self.folder / "parts",
                   "Dir::State::lists": self.folder / "lists", "Dir::Cache": self.folder / "cache",
                   "APT::Sandbox::User": "root"}
        command = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items()), *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True)

    def update(self):
        done = self.run("update")
        if done.returncode and not any((self.folder / "lists").glob("*_Sources*")):
            sys.exit("debian_text.py: apt-get update failed, check the network and the machine's apt "
                     f"sources:\n{done.stderr}")

    def fetch(self, packages):
        """Fetches what can be had.  apt checks every file's hash and keeps those it already has."""
        sources = [name.removeprefix("source:") for name in packages if name.startswith("source:")]
        binaries = [name for name in packages if not name.startswith("source:")]
        jobs = [(["source", "--download-only"], self.sources, sources[start:start + 20])
                for start in range(0, len(sources), 20)]
        jobs += [(["download"], self.binaries, binaries[start:start + 20])
                 for start in range(0, len(binaries), 20)]
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for count, _ in enumerate(pool.map(lambda job: self.fetch_batch(*job), jobs), 1):
                say(f"fetched {count} of {len(jobs)} batches")

    def fetch_batch(self, action, folder, names):
        done = self.run(*action, *names, cwd=folder)
        # A name that apt does not know stops the whole batch.
        if done.returncode and re.search("Unable to (find|locate)|No candidate|Can't find", done.stderr):
            for name in names:
                self.run(*action, name, cwd=folder)


class Package:
    """The files of one fetched package, read without unpacking it to disk."""

    def __init__(self, apt, name):
        self.is_source = name.startswith("source:")
        self.name = name.removeprefix("source:")
        self.version = self.licence = ""
        if self.is_source:
            self.find_source(apt.sources)
        else:
            found = sorted(apt.binaries.glob(f"{self.name}_*.deb"), key=lambda path: path.stat().st_mtime)
            if not found:
                raise LookupError(f"{name}: cannot be had, left out")
            self.archive = found[-1]
            self.version = self.archive.name.split("_")[1]

    def find_source(self, folder):
        descriptions = sorted(folder.glob(f"{self.name}_*.dsc"), key=lambda path: path.stat().st_mtime)
        if not descriptions:
            raise LookupError(f"source:{self.name}: cannot be had, left out")
        text = descriptions[-1].read_text(errors="replace")
        self.version = re.search(r"^Version: (.*)$", text, re.M)[1]
        self.archive = self.debian_archive = None
        for digest, name in re.findall(r"^ ([0-9a-f]{64}) \d+ (\S+)$", text, re.M):
            path = folder / name
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                continue
            if re.search(r"\.debian\.tar\.\w+$", name):
                self.debian_archive = path
            elif re.search(r"(\.orig)?\.tar\.(gz|xz|bz2)$", name) and ".orig-" not in name:
                self.archive = path
        if self.archive is None:
            raise LookupError(f"source:{self.name}: its tarball cannot be had, left out")
        if self.debian_archive:
            with tarfile.open(self.debian_archive) as archive:
                for member in archive:
                    if member.isfile() and member.name.removeprefix("./") == "debian/copyright":
                        self.note_licence(archive.extractfile(member).read())

    def note_licence(self, copyright_file):
        text = copyright_file.decode("utf-8", "replace")
        main = re.search(r"^Files:\s*\*\s*\n(?:.*\n)*?License:\s*(\S.*)$", text, re.M)
        self.licence = self.licence or (main[1].strip() if main else "see the package's copyright file")

    def note_licence_text(self, path, data):
        lines = [line.strip(" \t#*=-") for line in data.decode("utf-8", "replace").split("\n")]
        telling = [line for line in lines if re.search("licen[cs]e|permission|public domain", line, re.I)]
        self.licence = f"{path}: {(telling or ['see that file'])[0][:60]}"

    def source(self):
        kind = "source package " if self.is_source else ""
        licence = self.licence or "licence not stated"
        return f"Debian bookworm {kind}{self.name} {self.version} ({licence})"

    def files(self, wanted, most_bytes=20_000_000):
        """{path: bytes} of the files whose path `wanted` accepts, without the top folder, in path order."""
        found = {}
        if self.is_source:
            with tarfile.open(self.archive) as archive:
                self.collect(archive, wanted, most_bytes, found)
        else:
            command = ["dpkg-deb", "--fsys-tarfile", str(self.archive)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                    self.collect(archive, wanted, most_bytes, found)
        return dict(sorted(found.items()))

    def collect(self, archive, wanted, most_bytes, found):
        for member in archive:
            path = member.name.removeprefix("./")
            if not member.isfile() or member.size > most_bytes:
                continue
            if self.is_source:
                path = path.partition("/")[2]
                if not self.licence and re.fullmatch(r"(COPYING|LICEN[CS]E)(\.(txt|md|rst|TXT))?", path):
                    self.note_licence_text(path, archive.extractfile(member).read())
            elif path == f"usr/share/doc/{self.name}/copyright":
                self.note_licence(archive.extractfile(member).read())
            if path and wanted(path):
                data = archive.extractfile(member).read()
                found[path] = gzip.decompress(data) if path.endswith(".gz") else data


# ---- Text --------------------------------------------------------------------------------

def decode(data, encodings):
    """The text with \\n line ends, or None where it is none."""
    if b"\0" in data:
        return None
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return None


def windows(text, size=6):
    """Hashes of every `size` successive lines: what two copies of a text share."""
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    hashes = []
    for start in range(len(lines) - size + 1):
        joined = "\n".join(lines[start:start + size])
        if len(joined) >= 120:
            hashes.append(hashlib.blake2b(joined.encode(), digest_size=8).digest())
    return hashes


class Screen:
    """Tells texts already taken, and those of the validation files."""

    def __init__(self, held_out):
        self.seen = set()
        self.held_out = set()
        for path in held_out:
            for record in read_records(path):
                self.held_out.update(windows(record["text"]))

    def takes(self, path, text):
        hashes = windows(text)
        copied = sum(value in self.held_out for value in hashes)
        if copied >= 25:  # a licence's lines are fewer
            say(f"  {path}: like the held-out text, left out")
            return False
        known = sum(value in self.seen for value in hashes)
        if hashes and known > len(hashes) * 0.5:
            return False
        self.seen.update(hashes)
        return True


def cut(text, most):
    """The text's beginning, up to the end of a paragraph."""
    if len(text) <= most:
        return text
    end = text.rfind("\n\n", 0, most)
    return text[:end if end > 0 else most]


def pieces(text, most):
    while len(text) > most:
        piece = cut(text, most)
        yield piece
        text = text[len(piece):]
    yield text


def is_english(text):
    words = re.findall(r"[a-z]+", text.lower())
    return len(words) > 200 and words.count("the") >= len(words) * 0.018


class PlainText(html.parser.HTMLParser):
    """HTML to text: blocks on lines of their own, <pre> as it is, navigation left out."""

    SKIPPED = {"script", "style", "head", "nav", "header", "footer", "svg", "button", "form"}
    SKIPPED_CLASS = re.compile(
        r"navheader|navfooter|sphinxsidebar|related|footer|sidebar|menu|breadcrumb|headerlink|"
        r"toplang|bottomlang|nosearch|searchmenu|docnav|toc\b|clearer|page-header|path|up\b", re.I)
    BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "dt", "dd", "li", "table", "tr",
              "pre", "blockquote", "section", "article", "hr", "br"}
    SPACED = BLOCKS - {"li", "tr", "br", "dt", "dd"}
    EMPTY = {"br", "hr", "img", "input", "meta", "link", "col", "area", "base", "wbr"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts, self.skipped, self.depth, self.preformatted = [], None, 0, 0

    def handle_starttag(self, tag, attributes):
        if self.skipped:
            self.depth += tag == self.skipped
            return
        names = " ".join(value or "" for name, value in attributes if name in ("class", "id"))
        if tag in self.SKIPPED or (tag in ("div", "a", "ul", "table", "p") and self.SKIPPED_CLASS.search(names)):
            self.skipped, self.depth = tag, 1
            return
        self.break_line(tag)
        if tag == "li":
            self.parts.append("- ")
        self.preformatted += tag == "pre"

    def handle_endtag(self, tag):
        if self.skipped:
            self.depth -= tag == self.skipped
            if not self.depth:
                self.skipped = None
            return
        self.preformatted -= tag == "pre" and self.preformatted > 0
        if tag in ("td", "th"):
            self.parts.append("  ")
        if tag not in self.EMPTY:
            self.break_line(tag)

    def break_line(self, tag):
        if tag in self.BLOCKS:
            self.parts.append("\n\n" if tag in self.SPACED else "\n")

    def handle_data(self, data):
        if not self.skipped:
            self.parts.append(data if self.preformatted else re.sub(r"\s+", " ", data))

    def text(self):
        lines = [line.rstrip() for line in "".join(self.parts).split("\n")]
        text = "\n".join(line[1:] if line[:1] == " " and line[:2] != "  " else line for line in lines)
        text = re.sub(r"(^|\n)-\n+", r"\1- ", text).replace("\u00b6", "")
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def html_to_text(text):
    parser = PlainText()
    parser.feed(text)
    parser.close()
    return parser.text()


# ---- The three files ---------------------------------------------------------------------

def is_code_path(path, suffixes):
    return (path.endswith(suffixes) and not NOT_SOURCE_FOLDER.search(path)
            and not NOT_SOURCE_FILE.search(path) and not VALIDATION_NAME.search(path))


def code_of(data):
    """The text of a source file, or None of one that is generated, minified or too large."""
    text = decode(data, ["utf-8"]) if len(data) <= CODE_FILE_BYTES else None
    if not text or not text.strip() or max(map(len, text.split("\n"))) > CODE_LINE:
        return None
    if GENERATED.search(text[:1500]) or VALIDATION_TEXT.search(text):
        return None
    return text if text.endswith("\n") else text + "\n"


def code_document(package, language, screen):
    parts, length = [], 0
    suffixes = SUFFIXES[language]
    for path, data in package.files(lambda path: is_code_path(path, suffixes), CODE_FILE_BYTES).items():
        text = code_of(data)
        path = LIBRARY_ROOTS.sub("", path)
        if text is None:
            continue
        part = f"# ===== file: {path} =====\n{text}"
        if length + len(part) + 1 > CODE_CAP:
            continue
        if screen.takes(path, text):
            parts.append(part)
            length += len(part) + 1
    return "\n".join(parts)


def code_documents(apt, screen):
    for language, names in CODE_PACKAGES.items():
        for name in names.split():
            package = open_package(apt, name)
            if package is None:
                continue
            text = code_document(package, language, screen)
            if len(text) < CODE_LEAST:
                say(f"{name}: only {len(text)} characters, left out")
                continue
            yield {"id": f"debian-code/{package.name}", "source": package.source(), "text": text}


def open_package(apt, name):
    try:
        return Package(apt, name)
    except LookupError as error:
        say(str(error))
        return None


def latex_works(package, pattern, group, screen):
    """{work: text} of a package's English sources in LaTeX and its kin."""
    wanted, group = re.compile(pattern, re.I), re.compile(group)
    works = {}
    for path, data in package.files(lambda path: wanted.search(path)).items():
        if re.search(r"(^|/)(texinfo|tex2page|epsf|gendocs)[^/]*\.tex$|openintro|lebl", path, re.I):
            continue
        text = decode(data, ["utf-8", "latin-1"])
        if not text or not is_english(text) or not screen.takes(path, text):
            continue
        if path.endswith(".rst") and not re.search(r":math:|math::|\\\(|`\\|\$", text):
            continue
        match = group.search(path)
        work = works.setdefault(match[0] if match else "", [])
        space = LATEX_CAP - sum(map(len, work)) - len(work)
        if len(text) > space and not work:
            text = cut(text, space)
        if len(text) <= space:
            work.append(text.strip("\n") + "\n")
    return {work: "\n".join(texts) for work, texts in works.items()}


def latex_documents(apt, screen):
    manuals = [line.split() for line in LATEX_MANUALS.strip().splitlines()]
    vignettes = [[name, r"\.(rnw|rtex|snw)(\.gz)?$", "^"] for name in VIGNETTE_PACKAGES.split()]
    own = [manual for manual in manuals if not manual[0].startswith("texlive")]
    collections = [manual for manual in manuals if manual[0].startswith("texlive")]
    total = 0
    for document in [*joined(apt, own, screen), *joined(apt, vignettes, screen), *joined(apt, collections, screen)]:
        total += len(document["text"])
        if total > LATEX_GOAL:
            say(f"{document['id']}: past the goal, the rest left out")
            return
        yield document


def joined(apt, entries, screen):
    """A document for each work; works too small for one share documents with their neighbours."""
    small, sources, count = [], [], 0
    for name, pattern, group in entries:
        package = open_package(apt, name)
        if package is None:
            continue
        works = latex_works(package, pattern, group, screen)
        for work, text in works.items():
            place = re.sub(r".*/texmf-dist/doc/|^usr/share/(doc/)?", "", work).strip("/")
            if len(text) >= LATEX_LEAST:
                yield {"id": f"debian-latex/{package.name}" + (f"/{place}" if place else ""),
                       "source": package.source(), "text": text}
                continue
            small.append(text)
            if package.source() not in sources:
                sources.append(package.source())
            if sum(map(len, small)) >= 2 * LATEX_LEAST:
                count += 1
                yield collected(package.name, count, small, sources)
                small, sources = [], []
    if sum(map(len, small)) >= LATEX_LEAST:
        yield collected(package.name, count + 1, small, sources)


def collected(name, count, texts, sources):
    return {"id": f"debian-latex/collected-{count}-{name}", "source": "; ".join(sources), "text": "\n".join(texts)}


def docs_documents(apt, screen):
    for name, kind, millions, pattern, group in docs_entries():
        package = open_package(apt, name)
        if package is None:
            continue
        parts = docs_parts(package, re.compile(pattern), re.compile(group), kind, screen)
        if not parts:
            say(f"{name}: less than {DOCS_LEAST} characters, left out")
        space = int(float(millions) * 1_000_000)
        for number, text in enumerate(parts, 1):
            if len(text) > space:
                continue
            space -= len(text)
            suffix = f"/{number}" if len(parts) > 1 else ""
            yield {"id": f"debian-docs/{name}{suffix}", "source": package.source(), "text": text}


def docs_entries():
    words = DOCS_PACKAGES.split()
    return [words[start:start + 5] for start in range(0, len(words), 5)]


def docs_parts(package, wanted, group, kind, screen):
    """A package's groups of files: small ones joined with the next, large ones divided."""
    parts, last_group, current = [], None, []
    for path, data in package.files(lambda path: wanted.search(path)).items():
        text = decode(data, ["utf-8", "latin-1"])
        if text is None:
            continue
        if kind == "html":
            text = html_to_text(text)
        if len(text) < 400 or not screen.takes(path, text):
            continue
        match = group.search(path)
        key = match[0] if match else ""
        for piece in pieces(text, DOCS_CAP - 2):
            length = sum(map(len, current))
            if (key != last_group and length >= DOCS_LEAST) or length + len(piece) > DOCS_CAP:
                parts.append(current)
                current = []
            last_group = key
            current.append(piece.strip("\n") + "\n")
    if sum(map(len, current)) >= DOCS_LEAST or not parts:
        parts.append(current)
    elif sum(map(len, parts[-1])) + sum(map(len, current)) <= DOCS_CAP:
        parts[-1] += current
    texts = ["\n".join(part) for part in parts]
    return [text for text in texts if len(text) >= DOCS_LEAST]


# ---- Writing -----------------------------------------------------------------------------

def read_records(path):
    done = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True)
    if done.returncode:
        sys.exit(f"debian_text.py: cannot read {path}: give a file of JSON Lines packed by zstd")
    return [json.loads(line) for line in done.stdout.split(b"\n") if line]


def write_records(path, documents):
    """Writes beside the file and renames at the end: the file is never half there."""
    unfinished = path.with_name(path.name + ".unfinished")
    count = length = 0
    command = ["zstd", "-19", "-q", "-f", "-o", str(unfinished)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        for document in documents:
            line = json.dumps(document, ensure_ascii=False) + "\n"
            process.stdin.write(line.encode("utf-8"))
            count += 1
            length += len(document["text"])
            say(f"{document['id']}: {len(document['text'])}")
    if process.returncode:
        sys.exit(f"debian_text.py: zstd could not write {unfinished}: check the free space")
    unfinished.rename(path)
    say(f"{path}: {count} documents, {length} characters, {path.stat().st_size} bytes packed")


def every_package():
    names = " ".join(CODE_PACKAGES.values()).split() + VIGNETTE_PACKAGES.split()
    names += [line.split()[0] for line in LATEX_MANUALS.strip().splitlines()]
    names += [entry[0] for entry in docs_entries()]
    return list(dict.fromkeys(names))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the three files go")
    parser.add_argument("--work", type=Path, metavar="FOLDER",
                        help="where downloads are kept (about 3 GB; default: OUTPUT/downloads)")
    parser.add_argument("--held-out", type=Path, action="append", default=[], metavar="FILE",
                        help="validation text in the same form: files that share much with it are left out")
    parser.add_argument("--only", choices=["code", "latex", "docs"], help="write one of the files")
    arguments = parser.parse_args()
    for program in ("apt-get", "dpkg-deb", "zstd"):
        if shutil.which(program) is None:
            sys.exit(f"debian_text.py: there is no program {program} here; install it first")
    Screen(arguments.held_out)  # what cannot be read is told before gigabytes are fetched
    work = arguments.work or arguments.output / "downloads"
    arguments.output.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    apt = Apt(work)
    apt.update()
    apt.fetch(every_package())
    makers = {"code": code_documents, "latex": latex_documents, "docs": docs_documents}
    for kind, documents in makers.items():
        if arguments.only in (None, kind):
            screen = Screen(arguments.held_out)
            write_records(arguments.output / f"debian_{kind}_train.jsonl.zst", documents(apt, screen))


if __name__ == "__main__":
    main()
