#include "common/metrics/metrics.h"

#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bunker::metrics {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(MetricsTest, WritesTheExpositionFormat) {
  Counter counter;
  counter.Add(3);
  Gauge gauge;
  gauge.Add(5);
  gauge.Add(-7);
  Family<Counter> family{{"code", "kind"}};
  family.With({"A\"\\\n", "x"}).Add();
  Registry registry;
  registry.Add("a_total", "Help.", &counter);
  registry.Add("b", "Help.", &gauge);
  registry.Add("c_total", "Help.", &family);
  EXPECT_EQ(registry.Text(),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total 3\n"
            "# HELP b Help.\n# TYPE b gauge\nb -2\n"
            "# HELP c_total Help.\n# TYPE c_total counter\n"
            "c_total{code=\"A\\\"\\\\\\n\",kind=\"x\"} 1\n");
}

TEST(MetricsTest, HistogramsAreCumulative) {
  Histogram histogram({0.1, 1});
  for (const double value : {0.05, 0.1, 0.5, 7.0}) histogram.Observe(value);
  EXPECT_EQ(histogram.Cumulative(), (std::vector<uint64_t>{2, 3, 4}));
  Registry registry;
  registry.Add("h_seconds", "Help.", &histogram);
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("h_seconds_bucket{le=\"0.1\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("h_seconds_bucket{le=\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("h_seconds_count 4\n"));
  EXPECT_THAT(text, HasSubstr("h_seconds_sum 7.65"));
}

TEST(MetricsTest, AFamilyIsBounded) {
  Family<Counter> family{{"x"}};
  for (size_t i = 0; i < kMaxChildren + 50; ++i) family.With({std::to_string(i)}).Add();
  EXPECT_EQ(family.All().size(), kMaxChildren + 1);
  EXPECT_EQ(family.With({"other"}).value(), 50u);
}

TEST(MetricsTest, NothingIsLostBetweenThreads) {
  Counter counter;
  Family<Histogram> family{{"x"}, [] { return std::make_unique<Histogram>(BatchSizes()); }};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) {
        counter.Add();
        family.With({std::to_string(i % 3)}).Observe(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 40000u);
  double sum = 0;
  for (const auto& [values, child] : family.All()) sum += child->sum();
  EXPECT_EQ(sum, 40000);
}

TEST(MetricsTest, AProcessHasMemoryAndDescriptors) {
  Registry registry;
  registry.AddProcess();
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("process_resident_memory_bytes "));
  EXPECT_THAT(text, Not(HasSubstr("process_resident_memory_bytes 0\n")));
  EXPECT_THAT(text, Not(HasSubstr("process_open_fds 0\n")));
}

}  // namespace
}  // namespace bunker::metrics
