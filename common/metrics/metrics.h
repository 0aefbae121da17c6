// Counters, gauges and histograms, and their text in Prometheus' exposition format.
//
// An instrument belongs to the part that it measures and is updated there without a lock; a
// Registry knows instruments by name and writes them down when it is asked. No label may hold what
// a tenant chose, and a family holds at most kMaxChildren label values: further ones are counted
// under "other".
//
// Thread-safe, but for registering, which comes first.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/mutex.h"

namespace bunker::metrics {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void Add(int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  void Set(int64_t n) { value_.store(n, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

class Histogram {
 public:
  // Upper bounds, rising.
  explicit Histogram(std::vector<double> bounds);
  void Observe(double value);

  const std::vector<double>& bounds() const { return bounds_; }
  // Of values up to bounds()[i]; the last one: of all.
  std::vector<uint64_t> Cumulative() const;
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> counts_;
  std::atomic<double> sum_{0};
};

// From 1 ms to 60 s, for what people wait for; from 10 µs to 1 s, for a loop's own steps; and from
// 1 to 4096, for sizes of batches.
std::vector<double> WaitSeconds();
std::vector<double> StepSeconds();
std::vector<double> BatchSizes();

inline constexpr size_t kMaxChildren = 2000;

// One instrument for each combination of label values.
template <typename T>
class Family {
 public:
  using Make = std::function<std::unique_ptr<T>()>;
  Family(std::vector<std::string> labels, Make make)
      : labels_(std::move(labels)), make_(std::move(make)) {}
  explicit Family(std::vector<std::string> labels)
      : Family(std::move(labels), [] { return std::make_unique<T>(); }) {}

  // REQUIRES: as many values as labels.
  T& With(std::vector<std::string> values) {
    MutexLock lock(mutex_);
    const auto it = children_.find(values);
    if (it != children_.end()) return *it->second;
    if (children_.size() >= kMaxChildren) values.assign(labels_.size(), "other");
    std::unique_ptr<T>& child = children_[std::move(values)];
    if (child == nullptr) child = make_();
    return *child;
  }

  const std::vector<std::string>& labels() const { return labels_; }
  std::vector<std::pair<std::vector<std::string>, const T*>> All() const {
    MutexLock lock(mutex_);
    std::vector<std::pair<std::vector<std::string>, const T*>> all;
    for (const auto& [values, child] : children_) all.emplace_back(values, child.get());
    return all;
  }

 private:
  const std::vector<std::string> labels_;
  const Make make_;
  mutable Mutex mutex_;
  std::map<std::vector<std::string>, std::unique_ptr<T>> children_ ABSL_GUARDED_BY(mutex_);
};

class Registry {
 public:
  // `name` follows Prometheus' conventions (a unit's suffix; _total for counters). What is given
  // must outlive the registry.
  void Add(std::string name, std::string help, const Counter* counter);
  void Add(std::string name, std::string help, const Gauge* gauge);
  void Add(std::string name, std::string help, const Histogram* histogram);
  void Add(std::string name, std::string help, const Family<Counter>* family);
  void Add(std::string name, std::string help, const Family<Gauge>* family);
  void Add(std::string name, std::string help, const Family<Histogram>* family);
  // Asked for at every writing. A counter's value never falls.
  void AddCounter(std::string name, std::string help, std::function<double()> value);
  void AddGauge(std::string name, std::string help, std::function<double()> value);

  // What Prometheus knows of every process: memory, descriptors, CPU, start.
  void AddProcess();

  std::string Text() const;
  std::vector<std::string> names() const;

 private:
  struct Series {
    std::string name;
    std::string help;
    const char* type;
    std::function<void(std::string* out, const std::string& name)> write;
  };
  void Add(std::string name, std::string help, const char* type,
           std::function<void(std::string*, const std::string&)> write);

  std::vector<Series> series_;
};

inline constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace bunker::metrics
