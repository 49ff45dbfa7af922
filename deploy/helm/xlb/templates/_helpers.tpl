{{- define "xlb.selector" -}}
app.kubernetes.io/name: xlb
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "xlb.labels" -}}
{{ include "xlb.selector" . }}
app.kubernetes.io/component: agent
app.kubernetes.io/part-of: xlb
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What the flags say, as arguments. YAML 1.1 reads on and off as true and false: only these flags take no value. */}}
{{- define "xlb.arguments" -}}
{{- $bare := list "ip-mode-proxy" "keep-dataplane" "source-ranges-fail-closed" -}}
{{- range $name, $value := .Values.flags }}
{{- if kindIs "slice" $value }}
{{- if $value }}
- {{ printf "--%s=%s" $name (join "," $value) | quote }}
{{- end }}
{{- else if kindIs "bool" $value }}
{{- if has $name $bare }}
{{- if $value }}
- {{ printf "--%s" $name | quote }}
{{- end }}
{{- else if $value }}
- {{ printf "--%s=on" $name | quote }}
{{- else }}
- {{ printf "--%s=off" $name | quote }}
{{- end }}
{{- else if kindIs "string" $value }}
- {{ printf "--%s=%s" $name $value | quote }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%d" $name (int64 $value) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The value of an address flag: off, or an address and a port. Arguments: the values, the flag, its default. */}}
{{- define "xlb.address" -}}
{{- $value := index (index . 0).flags (index . 1) -}}
{{- if kindIs "string" $value }}{{ $value }}{{ else if kindIs "bool" $value }}off{{ else }}{{ index . 2 }}{{ end }}
{{- end }}

{{- define "xlb.health" -}}
{{ include "xlb.address" (list .Values "health-address" "0.0.0.0:10356") }}
{{- end }}

{{- define "xlb.metrics" -}}
{{ include "xlb.address" (list .Values "metrics-address" "127.0.0.1:10349") }}
{{- end }}

{{/* An HTTP probe. One that listens at a single address is asked there. Arguments: the health address, the path. */}}
{{- define "xlb.probe" -}}
{{- $address := index . 0 -}}
{{- $host := trimSuffix (printf ":%s" (last (splitList ":" $address))) $address | trimPrefix "[" | trimSuffix "]" -}}
httpGet:
  path: {{ index . 1 }}
  port: health
  {{- if not (has $host (list "0.0.0.0" "::" "$(NODE_IP)")) }}
  host: {{ $host | quote }}
  {{- end }}
{{- end }}
