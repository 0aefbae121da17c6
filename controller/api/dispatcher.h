// The one way in: every call of REST and gRPC, once decoded, comes through Invoke(), which checks
// it by the descriptors and the table of rules, authenticates it, counts it, answers repeats, and
// runs its handler on the core's loop. Answers leave after the commit.
//
// Register() before the first Invoke(); Invoke() is thread-safe; handlers run on the loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "controller/api/auth.h"
#include "controller/engine/core.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

// What a transport knows of a call.
struct CallInfo {
  std::string request_id;
  bool trusted = false;         // came over the root-only socket: the operator, no key needed
  std::string authorization;    // the header as sent
  std::string idempotency_key;  // "" = none
  absl::Time received_at;
  // Set where the client may go away while it waits: the dispatcher's caller invokes `*cancel`
  // then, on the loop. A handler that can end early puts its own function there.
  std::shared_ptr<std::function<void()>> cancel;
};

// What a handler gets. `engine` and `turn` are valid during the call of the handler alone.
struct CallContext {
  Core& core;
  Engine& engine;
  Turn& turn;
  Caller caller;
  CallInfo info;
  // Where set (an Idempotency-Key was sent), a handler that answers later than its turn must call
  // it in its turn with the answer as it is now: what a repeat of the same key will get.
  std::function<void(const google::protobuf::Message&)> remember;
};

// What was refused, for the operator's metrics, whichever transport asked.
struct RefusalStats {
  metrics::Family<metrics::Counter> errors{{"code"}};
  metrics::Family<metrics::Counter> placements{{"predicate"}};  // workers turned down
  metrics::Counter quota;
  metrics::Counter rate_limited;
};

class Dispatcher {
 public:
  using Message = google::protobuf::Message;
  using Answer = absl::StatusOr<std::shared_ptr<const Message>>;
  using Done = absl::AnyInvocable<void(Answer)>;

  struct Options {
    double rate_per_second = 100;
    double rate_burst = 200;
  };

  // `core` must outlive the dispatcher and all calls.
  Dispatcher(Core& core, Options options);

  // A handler that answers in its own turn: `StatusOr<Resp> (CallContext&, const Req&)`.
  template <typename Req, typename Resp, typename F>
  void Register(F handler) {
    Add(Req::descriptor(), Resp::descriptor(),
        [handler](CallContext& context, const Message& request, FinishFn finish) {
          absl::StatusOr<Resp> response = handler(context, static_cast<const Req&>(request));
          if (response.ok() && context.remember) context.remember(*response);
          Gate(context, Wrap<Resp>(std::move(response)), std::move(finish));
        });
  }

  // A handler that answers when it can: `void (CallContext&, const Req&, Finish<Resp>)`. It calls
  // finish once, on the loop, with nothing that is not durable.
  template <typename Resp>
  using Finish = std::function<void(absl::StatusOr<Resp>)>;
  template <typename Req, typename Resp, typename F>
  void RegisterAsync(F handler) {
    Add(Req::descriptor(), Resp::descriptor(),
        [handler](CallContext& context, const Message& request, FinishFn finish) {
          auto shared = std::make_shared<FinishFn>(std::move(finish));
          handler(context, static_cast<const Req&>(request),
                  Finish<Resp>([shared](absl::StatusOr<Resp> response) {
                    if (*shared) std::exchange(*shared, nullptr)(Wrap<Resp>(std::move(response)));
                  }));
        });
  }

  // For the next Register call: which RPC. Dies on one that the table of rules does not have, or
  // that has a handler.
  Dispatcher& For(std::string_view method);

  // Every RPC of the table has a handler; else which one has not.
  absl::Status CheckComplete() const;

  // Decides and answers; `done` runs once, on the loop. `body_field` is the part of the request
  // that the client sees as the whole body, for naming fields ("" = all).
  void Invoke(const google::protobuf::MethodDescriptor* method,
              std::shared_ptr<const Message> request, CallInfo info, std::string_view body_field,
              Done done);

  // Authenticates and checks the rule of `method` as Invoke() does, then runs `run` on the loop:
  // for streams, which no handler answers. Errors go to `refused`, after the commit.
  void Admit(std::string_view method, CallInfo info,
             absl::AnyInvocable<void(CallContext&)> run,
             absl::AnyInvocable<void(absl::Status)> refused);

  const RefusalStats& refusals() const { return *refusals_; }

  // Whether a caller that was admitted still is (its key not revoked or expired since). On the
  // loop, in an event.
  static absl::Status StillAdmitted(const CallInfo& info, Engine& engine, Turn& turn);

 private:
  using FinishFn = std::function<void(Answer)>;
  using Handler = std::function<void(CallContext&, const Message&, FinishFn)>;
  struct Entry {
    const MethodRule* rule = nullptr;
    Handler handler;
    const google::protobuf::Descriptor* request = nullptr;
    const google::protobuf::Descriptor* response = nullptr;
  };
  struct Running;

  template <typename Resp>
  static Answer Wrap(absl::StatusOr<Resp> response) {
    if (!response.ok()) return response.status();
    return std::static_pointer_cast<const Message>(
        std::make_shared<const Resp>(*std::move(response)));
  }
  static void Gate(CallContext& context, Answer answer, FinishFn finish);

  void Add(const google::protobuf::Descriptor* request,
           const google::protobuf::Descriptor* response, Handler handler);
  absl::StatusOr<Caller> Identify(const MethodRule& rule, const CallInfo& info, Engine& engine,
                                  Turn& turn);
  void Run(std::shared_ptr<Running> call, Caller caller, Engine& engine, Turn& turn);
  absl::StatusOr<std::shared_ptr<const Message>> FindRepeat(const Running& call,
                                                            const Caller& caller,
                                                            const std::string& hash,
                                                            Engine& engine, Turn& turn);

  Core& core_;
  RateLimiter limiter_;  // on the loop
  const std::shared_ptr<RefusalStats> refusals_ = std::make_shared<RefusalStats>();
  std::map<std::string, Entry, std::less<>> entries_;
  Entry* adding_ = nullptr;
};

}  // namespace bunker::controller
