{{- /* The rule of the route: what is given whole, else gRPC calls by host name and header, or any. */}}
{{- define "riva.routeRule" -}}
{{- $parts := list -}}
{{- with .Values.route.host }}{{- $parts = append $parts (printf "Host(`%s`)" .) -}}{{- end -}}
{{- with .Values.route.header }}
{{- if .name }}{{- $parts = append $parts (printf "Header(`%s`, `%s`)" .name .value) -}}{{- end -}}
{{- end -}}
{{- /* What is no gRPC gets 404 at once: a speech server would leave it waiting. */}}
{{- $parts = append ($parts | default (list "PathPrefix(`/`)")) "HeaderRegexp(`Content-Type`, `^application/grpc`)" -}}
{{- .Values.route.match | default (join " && " $parts) -}}
{{- end -}}

{{- /* A list of {name, spec}: cheap refusals first, the question to the token check last. */}}
{{- define "riva.middlewares" -}}
{{- $route := .Values.route -}}
{{- $found := list -}}
{{- with $route.allowedSources -}}
{{- $found = append $found (dict "name" "sources" "spec" (dict "ipAllowList" (dict "sourceRange" .))) -}}
{{- end -}}
{{- with $route.limits -}}
{{- if .newStreamsPerSecond -}}
{{- $burst := .burst | default .newStreamsPerSecond -}}
{{- $rate := dict "average" .newStreamsPerSecond "period" "1s" "burst" $burst -}}
{{- $found = append $found (dict "name" "rate" "spec" (dict "rateLimit" $rate)) -}}
{{- end -}}
{{- if .streamsPerClient -}}
{{- $flight := dict "amount" .streamsPerClient "sourceCriterion" (dict "ipStrategy" dict) -}}
{{- $found = append $found (dict "name" "client-streams" "spec" (dict "inFlightReq" $flight)) -}}
{{- end -}}
{{- if .streams -}}
{{- $flight := dict "amount" .streams "sourceCriterion" (dict "requestHost" true) -}}
{{- $found = append $found (dict "name" "streams" "spec" (dict "inFlightReq" $flight)) -}}
{{- end -}}
{{- end -}}
{{- if $route.auth.address -}}
{{- $auth := dict "address" $route.auth.address "authRequestHeaders" $route.auth.requestHeaders -}}
{{- with $route.auth.responseHeaders }}{{- $_ := set $auth "authResponseHeaders" . -}}{{- end -}}
{{- $found = append $found (dict "name" "token" "spec" (dict "forwardAuth" $auth)) -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}
