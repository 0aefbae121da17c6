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
#include "controller/api/admissions.h"
#include "controller/api/audit_trail.h"
#include "common/metrics/metrics.h"
#include "controller/api/auth.h"
#include "controller/api/stream_sink.h"
#include "controller/engine/core.h"
#include "google/protobuf/message.h"

namespace bunker::controller {

// What a transport knows of a call.
struct CallInfo {
  std::string request_id;
  bool trusted = false;         // came over the root-only socket: the operator, no key needed
  std::string authorization;    // the header as sent
  std::string key_sha256;       // not "": a ticket stood for that key, in place of the header
  std::string ticket_bunker_id;  // with it: the only bunker it is good for
  std::string idempotency_key;  // "" = none
  std::string if_match;         // "" = none
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
  const MethodRule& rule;
  // Where set (mutations), a handler that answers later than its turn calls it in its turn, once it
  // has done what it was asked, with the answer as it is now: what a repeat with the same
  // Idempotency-Key gets, and what the audit row is about.
  std::function<void(const google::protobuf::Message&)> remember;
  bool scope_checked = false;  // by one of the two below
  // The call's audit row; null for calls that have none. Handlers may add details; one whose rule
  // has Extra::kStart calls Started() in the turn before the command can begin. The rest is the
  // dispatcher's.
  std::shared_ptr<CallAudit> audit = nullptr;
  // For calls that go on after their turn; see Admission. Hold it as long as they do. Null in
  // handlers: the dispatcher ends what they wait for (CallInfo::cancel) by itself.
  std::shared_ptr<Admission> admission = nullptr;
};

// For rules with a platform_permission, once per call (the table at MethodRule says what is
// checked). A create calls CheckScope() with the scope it was asked for; what changes or acts on a
// row calls CheckMayChange() with the owner of the row, which the caller was found to see (else
// NOT_FOUND comes first). OK or AUTHZ_PERMISSION_DENIED. `noun`, for the message: "group".
absl::Status CheckScope(CallContext& context, Scope scope, std::string_view noun);
absl::Status CheckMayChange(CallContext& context, const Ownership& owner, std::string_view noun);
// What was refused, for the operator's metrics, whichever transport asked.
struct RefusalStats {
  metrics::Family<metrics::Counter> errors{{"code"}};
  metrics::Family<metrics::Counter> placements{{"predicate"}};  // workers turned down
  metrics::Counter quota;
  metrics::Counter rate_limited;
};

// Counts a refused call; its HTTP status.
int CountRefusal(const absl::Status& status, RefusalStats& stats);

class Dispatcher {
 public:
  using Message = google::protobuf::Message;
  using Answer = absl::StatusOr<std::shared_ptr<const Message>>;
  using Done = absl::AnyInvocable<void(Answer)>;

  struct Options {
    double rate_per_second = 100;
    double rate_burst = 200;
    // What requests that carry an Idempotency-Key are remembered by is keyed with it, since they
    // may hold secrets that a plain hash would let one guess.
    std::string request_hash_key{};
  };

  // `core` must outlive the dispatcher and all calls.
  Dispatcher(Core& core, Options options);

  // A handler that answers in its own turn: `StatusOr<Resp> (CallContext&, const Req&)`.
  template <typename Req, typename Resp, typename F>
  void Register(F handler) {
    Add(Req::descriptor(), Resp::descriptor(),
        [handler](CallContext& context, const Message& request, FinishFn finish) {
          const size_t savepoint = context.turn.Savepoint();
          absl::StatusOr<Resp> response = handler(context, static_cast<const Req&>(request));
          if (response.ok() && Unchecked(context, savepoint))
            response = absl::InternalError("a handler that did not check the scope");
          if (response.ok() && context.remember) context.remember(*response);
          if (!response.ok() && context.audit)
            context.audit->Refused(context.engine, context.turn, response.status());
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

  // A stream, which no handler answers: its transport calls Admit().
  void RegisterStream() { adding_ = nullptr; }

  // A stream that OpenStream() begins: `void (CallContext&, const Req&, shared_ptr<StreamSink>)`.
  // The handler ends the sink, whatever happens; `context.admission` is its to keep.
  using Sink = std::shared_ptr<StreamSink>;
  template <typename Req, typename F>
  void RegisterStream(F handler) {
    AddStream(Req::descriptor(), [handler](CallContext& context, const Message& request,
                                           Sink sink) {
      handler(context, static_cast<const Req&>(request), std::move(sink));
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
  // for streams, which no handler answers. Errors go to `refused`, after the commit. A stream keeps
  // `context.admission` and ends when that is lost.
  void Admit(std::string_view method, CallInfo info,
             absl::AnyInvocable<void(CallContext&)> run,
             absl::AnyInvocable<void(absl::Status)> refused);

  // Checks the call as Invoke() does and has its stream's handler feed `sink`. Thread-safe.
  void OpenStream(const google::protobuf::MethodDescriptor* method,
                  std::shared_ptr<const Message> request, CallInfo info,
                  std::string_view body_field, Sink sink);

  const RefusalStats& refusals() const { return *refusals_; }

 private:
  using FinishFn = std::function<void(Answer)>;
  using Handler = std::function<void(CallContext&, const Message&, FinishFn)>;
  using StreamHandler = std::function<void(CallContext&, const Message&, Sink)>;
  struct Entry {
    const MethodRule* rule = nullptr;
    Handler handler;
    StreamHandler stream;
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
  // Whether the handler forgot what its rule asks of it; then what it wrote has been taken back.
  static bool Unchecked(CallContext& context, size_t savepoint);

  void Add(const google::protobuf::Descriptor* request,
           const google::protobuf::Descriptor* response, Handler handler);
  void AddStream(const google::protobuf::Descriptor* request, StreamHandler handler);
  // Who calls, and whether it may; `*sha256` of the key ("" = the operator's or none). A refusal
  // of one who is known is audited, `request` (may be null) telling what it was about.
  absl::StatusOr<Caller> Identify(const MethodRule& rule, const CallInfo& info,
                                  const Message* request, Engine& engine, Turn& turn,
                                  std::string* sha256);
  // The answer of an audited call that has no row yet gets one first.
  void FinishAudited(const std::shared_ptr<Running>& call, const std::shared_ptr<CallAudit>& audit,
                     Answer answer);
  void EndWhenLost(const std::shared_ptr<Running>& call, const Caller& caller, Engine& engine);
  absl::Status CheckRequest(const Running& call, const Caller& caller, CallAudit* audit);
  void Run(std::shared_ptr<Running> call, Caller caller, Engine& engine, Turn& turn);
  absl::Status Remember(const Running& call, const std::string& tenant_id, const std::string& hash,
                        const Message& answer, Engine& engine, Turn& turn);
  absl::StatusOr<std::shared_ptr<const Message>> FindRepeat(const Running& call,
                                                            const Caller& caller,
                                                            const std::string& hash,
                                                            Engine& engine, Turn& turn);

  Core& core_;
  const std::string request_hash_key_;
  // On the loop.
  RateLimiter limiter_;
  AuditTrail trail_;
  Admissions admissions_;
  const std::shared_ptr<RefusalStats> refusals_ = std::make_shared<RefusalStats>();
  std::map<std::string, Entry, std::less<>> entries_;
  Entry* adding_ = nullptr;
};

}  // namespace bunker::controller
