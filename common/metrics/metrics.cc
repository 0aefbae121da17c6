#include "common/metrics/metrics.h"

#include <algorithm>

#include <fmt/format.h>

#include "common/base/log.h"

namespace bunker::metrics {
namespace {

using Labels = std::vector<std::string>;

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

// {a="x",b="y"}; "" without labels.
std::string Braces(const Labels& names, const Labels& values, const std::string& more = "") {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) {
    out += fmt::format("{}{}=\"{}\"", out.empty() ? "" : ",", names[i],
                       Escaped(i < values.size() ? values[i] : ""));
  }
  if (!more.empty()) out += (out.empty() ? "" : ",") + more;
  return out.empty() ? "" : "{" + out + "}";
}

void WriteOne(std::string* out, const std::string& name, const Labels& labels, const Labels& values,
              const Counter& counter) {
  *out += fmt::format("{}{} {}\n", name, Braces(labels, values), counter.value());
}

void WriteOne(std::string* out, const std::string& name, const Labels& labels, const Labels& values,
              const Gauge& gauge) {
  *out += fmt::format("{}{} {}\n", name, Braces(labels, values), gauge.value());
}

void WriteOne(std::string* out, const std::string& name, const Labels& labels, const Labels& values,
              const Histogram& histogram) {
  const std::vector<uint64_t> counts = histogram.Cumulative();
  for (size_t i = 0; i < counts.size(); ++i) {
    const std::string bound =
        i < histogram.bounds().size() ? fmt::format("{}", histogram.bounds()[i]) : "+Inf";
    *out += fmt::format("{}_bucket{} {}\n", name,
                        Braces(labels, values, fmt::format("le=\"{}\"", bound)), counts[i]);
  }
  *out += fmt::format("{}_sum{} {}\n", name, Braces(labels, values), histogram.sum());
  *out += fmt::format("{}_count{} {}\n", name, Braces(labels, values), counts.back());
}

template <typename T>
std::function<void(std::string*, const std::string&)> WriterOf(const T* instrument) {
  return [instrument](std::string* out, const std::string& name) {
    WriteOne(out, name, {}, {}, *instrument);
  };
}

template <typename T>
std::function<void(std::string*, const std::string&)> WriterOf(const Family<T>* family) {
  return [family](std::string* out, const std::string& name) {
    for (const auto& [values, child] : family->All())
      WriteOne(out, name, family->labels(), values, *child);
  };
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {
  BUNKER_CHECK(std::is_sorted(bounds_.begin(), bounds_.end()));
}

void Histogram::Observe(double value) {
  const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(at)].fetch_add(1, std::memory_order_relaxed);
  double before = sum_.load(std::memory_order_relaxed);
  while (!sum_.compare_exchange_weak(before, before + value, std::memory_order_relaxed)) {
  }
}

std::vector<uint64_t> Histogram::Cumulative() const {
  std::vector<uint64_t> counts;
  uint64_t sum = 0;
  for (const auto& count : counts_) {
    sum += count.load(std::memory_order_relaxed);
    counts.push_back(sum);
  }
  return counts;
}

std::vector<double> WaitSeconds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
}

std::vector<double> StepSeconds() {
  return {0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1};
}

std::vector<double> BatchSizes() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096};
}

void Registry::Add(std::string name, std::string help, const char* type,
                   std::function<void(std::string*, const std::string&)> write) {
  for (const Series& other : series_) BUNKER_CHECK(other.name != name);
  series_.push_back({std::move(name), std::move(help), type, std::move(write)});
}

void Registry::Add(std::string name, std::string help, const Counter* counter) {
  Add(std::move(name), std::move(help), "counter", WriterOf(counter));
}
void Registry::Add(std::string name, std::string help, const Gauge* gauge) {
  Add(std::move(name), std::move(help), "gauge", WriterOf(gauge));
}
void Registry::Add(std::string name, std::string help, const Histogram* histogram) {
  Add(std::move(name), std::move(help), "histogram", WriterOf(histogram));
}
void Registry::Add(std::string name, std::string help, const Family<Counter>* family) {
  Add(std::move(name), std::move(help), "counter", WriterOf(family));
}
void Registry::Add(std::string name, std::string help, const Family<Gauge>* family) {
  Add(std::move(name), std::move(help), "gauge", WriterOf(family));
}
void Registry::Add(std::string name, std::string help, const Family<Histogram>* family) {
  Add(std::move(name), std::move(help), "histogram", WriterOf(family));
}

void Registry::AddCounter(std::string name, std::string help, std::function<double()> value) {
  Add(std::move(name), std::move(help), "counter",
      [value = std::move(value)](std::string* out, const std::string& series) {
        *out += fmt::format("{} {}\n", series, value());
      });
}

void Registry::AddGauge(std::string name, std::string help, std::function<double()> value) {
  Add(std::move(name), std::move(help), "gauge",
      [value = std::move(value)](std::string* out, const std::string& series) {
        *out += fmt::format("{} {}\n", series, value());
      });
}

std::string Registry::Text() const {
  std::string out;
  for (const Series& series : series_) {
    std::string samples;
    series.write(&samples, series.name);
    if (samples.empty()) continue;  // nothing counted yet under any label
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", series.name, series.help, series.name,
                       series.type);
    out += samples;
  }
  return out;
}

std::vector<std::string> Registry::names() const {
  std::vector<std::string> names;
  for (const Series& series : series_) names.push_back(series.name);
  return names;
}

}  // namespace bunker::metrics
